"""Any order of allocations, copies, captures and synchronises: the bytes are those of a plain model."""

from __future__ import annotations

import importlib

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from runtimes.cuda.cuda_bindings import open_cuda
from runtimes.cuda.port import Graph
from runtimes.cuda.release import release_all

SIZE = 4
PLACES = st.integers(0, 2)
BYTES = st.integers(0, 255)


class OneStream(RuleBasedStateMachine):
    """Three blocks on the device, three pinned ones, one stream; the model does each piece of work as a list step."""

    @initialize()
    def open(self) -> None:
        self.device = importlib.import_module("cuda.double").DEVICE
        self.device.reset()
        self.cuda = open_cuda(0)
        self.stream = self.cuda.open_stream()
        self.blocks = [self.cuda.allocate(SIZE) for _ in range(3)]
        self.pinned = [self.cuda.allocate_pinned(SIZE) for _ in range(3)]
        for pinned in self.pinned:
            pinned.array[:] = 0
        for block in self.blocks:
            self.stream.copy_to_device(block.address, self.pinned[0].address, SIZE)
        self.stream.synchronize()
        self.model = {("block", place): 0 for place in range(3)} | {("pinned", place): 0 for place in range(3)}
        self.queue: list[tuple[tuple[str, int], tuple[str, int]]] = []
        self.graphs: list[tuple[Graph, list[tuple[tuple[str, int], tuple[str, int]]]]] = []

    def enqueue(self, target: tuple[str, int], source: tuple[str, int]) -> None:
        into, out_of = self.address(target), self.address(source)
        if target[0] == source[0]:
            self.stream.copy_on_device(into, out_of, SIZE)
        elif target[0] == "block":
            self.stream.copy_to_device(into, out_of, SIZE)
        else:
            self.stream.copy_to_host(into, out_of, SIZE)

    def address(self, place: tuple[str, int]) -> int:
        return self.blocks[place[1]].address if place[0] == "block" else self.pinned[place[1]].address

    @rule(place=PLACES, value=BYTES)
    def host_writes(self, place: int, value: int) -> None:
        self.pinned[place].array[:] = value
        self.model["pinned", place] = value

    @rule(kind=st.sampled_from([("block", "pinned"), ("pinned", "block"), ("block", "block")]), to=PLACES, of=PLACES)
    def copies(self, kind: tuple[str, str], to: int, of: int) -> None:
        step = ((kind[0], to), (kind[1], of))
        self.enqueue(*step)
        self.queue.append(step)

    @precondition(lambda self: len(self.graphs) < 3)
    @rule(steps=st.lists(st.tuples(st.booleans(), PLACES, PLACES), min_size=1, max_size=4))
    def captures(self, steps: list[tuple[bool, int, int]]) -> None:
        self.synchronises()
        captured = [
            (("block", to), ("pinned", of)) if down else (("pinned", to), ("block", of)) for down, to, of in steps
        ]

        def enqueue() -> None:
            for step in captured:
                self.enqueue(*step)

        self.graphs.append((self.stream.capture(enqueue), captured))

    @precondition(lambda self: self.graphs)
    @rule(data=st.data())
    def launches(self, data: st.DataObject) -> None:
        graph, captured = data.draw(st.sampled_from(self.graphs))
        self.stream.launch(graph)
        self.queue.extend(captured)

    @rule()
    def synchronises(self) -> None:
        self.stream.synchronize()
        for target, source in self.queue:
            self.model[target] = self.model[source]
        self.queue.clear()
        found = {("pinned", place): int(pinned.array[0]) for place, pinned in enumerate(self.pinned)}
        assert found == {key: value for key, value in self.model.items() if key[0] == "pinned"}

    def teardown(self) -> None:
        if hasattr(self, "cuda"):
            self.stream.synchronize()
            release_all(
                (
                    *(graph.close for graph, _ in self.graphs),
                    *(each.free for each in (*self.blocks, *self.pinned)),
                    self.stream.close,
                    self.cuda.close,
                )
            )
            assert (self.device.live(), self.device.misuses()) == ([], [])


def test_any_order_of_work_ends_as_the_model_says(device: object) -> None:
    run_state_machine_as_test(OneStream, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))
