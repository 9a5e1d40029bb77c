"""CUDA graphs of an engine: right results at the listed shapes, only there, and a refusal where there can be none."""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from messages import C7Error, DeviceFaultError, EngineDeserializeError, OutOfMemoryError
from runtimes.cuda.port import Cuda, Stream
from runtimes.tensorrt.inference import graphs as graphs_module
from runtimes.tensorrt.inference.activation_memory import ActivationMemory
from runtimes.tensorrt.inference.context import EngineContext
from runtimes.tensorrt.inference.graphs import capture_graph
from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.engines import ROWS, SCALE, Profile, Ready, assert_same, rows, to_device, to_host

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device
    from tests.doubles.tensorrt.core import Core

WORDS = "Error Code 9: Internal Error (it is the weather)"
LISTED: list[Mapping[str, tuple[int, ...]]] = [{"x": (2, 3)}, {"x": (6, 3), "scale": (3,)}]


class Way:
    """How runs come onto the stream, asked after each."""

    def __init__(self, core: Core, device: Device) -> None:
        self._core, self._device = core, device
        self.of_last_run()

    def of_last_run(self) -> str:
        launched = self._device.calls.count("cudaGraphLaunch")
        executed = self._core.calls.count("execute_async_v3")
        self._core.calls.clear()
        self._device.calls.clear()
        return f"{launched} graphs, {executed} calls"


def test_listed_shapes_are_launched_as_graphs_and_all_others_are_not(ready: Ready, core: Core, device: Device) -> None:
    engine = ready(models.dynamic(), ROWS, graphs=LISTED)
    way = Way(core, device)
    for count in (2, 3, 6, 2, 0, 1, 6, 4, 2):
        inputs = {"x": rows(count), "scale": SCALE}
        assert_same(engine.run(inputs), models.answers(models.dynamic(), inputs))
        assert way.of_last_run() == ("1 graphs, 0 calls" if count in (2, 6) else "0 graphs, 1 calls")


def test_an_engine_that_is_captured_is_never_run_on_what_fresh_memory_holds(ready: Ready) -> None:
    """An index that lies outside of its table reads where nothing is, and takes the device with it."""
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    node = helper.make_node("Gather", ["table", "index"], ["row"])
    data = models.model([node], [("index", models.INT64, [1])], [("row", models.FLOAT, [1, 3])], table=table)
    engine = ready(data, graphs=[{}])
    assert_same(engine.run({"index": np.array([2])}), {"row": table[2:3]})


def test_a_graph_replays_with_what_the_inputs_are_now(ready: Ready) -> None:
    engine = ready(models.dynamic(), ROWS, graphs=LISTED)
    for seed in range(4):
        inputs = {"x": rows(2) * seed, "scale": SCALE + seed}
        assert_same(engine.run(inputs), models.answers(models.dynamic(), inputs))


def test_a_graph_keeps_its_memory_where_other_shapes_need_more(ready: Ready) -> None:
    data = models.bulging()
    engine = ready(data, (("x", (1, 3), (2, 3), (6, 3)),), graphs=[{"x": (2, 3)}])
    for count in (2, 3, 2, 6):
        assert_same(engine.run({"x": rows(count)}), models.answers(data, {"x": rows(count)}))


def test_a_context_has_run_and_its_stream_is_idle_when_its_run_is_captured(
    ready: Ready, core: Core, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[int, int]] = []
    begin_capture = device.streams.begin_capture

    def begun(handle: int, mode: int) -> None:
        found.append((core.calls.count("execute_async_v3"), device.queued()))
        begin_capture(handle, mode)

    monkeypatch.setattr(device.streams, "begin_capture", begun)
    ready(models.dynamic(), ROWS, graphs=LISTED)
    # Three runs of the warm-up; then one run and one capture for each graph.
    assert found == [(4, 0), (6, 0)]


def test_what_a_consumer_left_to_the_collector_is_not_freed_inside_a_capture(
    ready: Ready, cuda: Cuda, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [to_device(cuda, device, rows(2)) for _ in LISTED]
    enqueue = EngineContext.enqueue
    threshold = gc.get_threshold()

    def enqueue_and_litter(context: EngineContext, stream: Stream) -> None:
        enqueue(context, stream)
        if device.capturing(stream.handle):
            litter: list[object] = [left.pop()]
            litter.append(litter)
            del litter
            gc.set_threshold(1)
            _ = [[number] for number in range(100)]

    monkeypatch.setattr(EngineContext, "enqueue", enqueue_and_litter)
    try:
        engine = ready(models.dynamic(), ROWS, graphs=LISTED)
        assert gc.isenabled()
    finally:
        gc.set_threshold(*threshold)
    assert left == []
    gc.collect()
    assert engine.run({"x": rows(2), "scale": SCALE}).keys() == {"scaled", "total", "echo"}


def test_a_graph_takes_device_tensors_and_gives_them(ready: Ready, cuda: Cuda, device: Device) -> None:
    engine = ready(models.dynamic(), ROWS, graphs=LISTED)
    inputs = {"x": rows(2), "scale": SCALE}
    first = engine.run({name: to_device(cuda, device, array) for name, array in inputs.items()})
    engine.run({"x": to_device(cuda, device, rows(2) * 5), "scale": to_device(cuda, device, SCALE)})
    assert_same(to_host(device, first), models.answers(models.dynamic(), inputs))


def test_an_engine_of_one_shape_has_a_graph_of_it(ready: Ready, core: Core, device: Device) -> None:
    image = np.ones((1, 3, 8, 8), np.float32)
    engine = ready(models.static(), graphs=[{}])
    way = Way(core, device)
    assert_same(engine.run({"image": image}), models.answers(models.static(), {"image": image}))
    assert way.of_last_run() == "1 graphs, 0 calls"


def test_graphs_of_several_engines_share_one_activation_memory(ready: Ready, cuda: Cuda) -> None:
    shared = ActivationMemory(cuda)
    engines = [ready(models.dynamic(), ROWS, graphs=LISTED, activations=shared) for _ in range(2)]
    for count in (2, 6, 3):
        for engine in engines:
            inputs = {"x": rows(count), "scale": SCALE}
            assert_same(engine.run(inputs), models.answers(models.dynamic(), inputs))
    engines.clear()


def test_an_engine_with_graphs_leaves_nothing(ready: Ready, device: Device) -> None:
    before = device.live()
    engine = ready(models.dynamic(), ROWS, graphs=LISTED)
    assert sum(line.startswith("executable graph") for line in device.live()) == 2
    engine.close()
    engine.close()
    del engine
    assert [line for line in device.live() if "graph" in line] == []
    assert len(device.live()) == len(before) + 1  # the engine's own memory, until its last user lets go


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(listed=st.lists(st.integers(0, 6), max_size=3), counts=st.lists(st.integers(0, 6), max_size=6))
def test_whatever_is_listed_every_shape_gives_what_the_model_gives(
    ready: Ready, listed: list[int], counts: list[int]
) -> None:
    engine = ready(models.dynamic(), ROWS, graphs=[{"x": (count, 3)} for count in listed])
    for count in counts:
        inputs = {"x": rows(count), "scale": SCALE}
        assert_same(engine.run(inputs), models.answers(models.dynamic(), inputs))
    engine.close()


# What has no graph.


@pytest.mark.parametrize(
    ("listed", "text"),
    [
        ({"y": (2, 3)}, "cuda_graphs names input y, expected x, scale"),
        ({"x": (7, 3)}, r"gives input x the shape \[7, 3\], expected from \[0, 3\] to \[6, 3\]"),
        ({"x": (2, 3, 1)}, r"gives input x the shape \[2, 3, 1\], expected from"),
        ({"x": (2, 3), "scale": (4,)}, r"gives input scale the shape \[4\], expected from \[3\] to \[3\]"),
    ],
)
def test_shapes_that_do_not_fit_the_engine_are_refused_by_name(
    ready: Ready, device: Device, listed: dict[str, tuple[int, ...]], text: str
) -> None:
    before = device.live()
    with pytest.raises(EngineDeserializeError, match=rf"^m: .*{text}.*take these shapes out of"):
        ready(models.dynamic(), ROWS, graphs=[listed])
    assert device.live() == before


def test_shapes_that_do_not_go_together_are_refused_by_name(ready: Ready, device: Device) -> None:
    before = device.live()
    profile: Profile = (("a", (1, 3), (2, 3), (4, 3)), ("b", (1, 3), (2, 3), (4, 3)))
    with pytest.raises(EngineDeserializeError, match=r"^m: no CUDA graph at a \[2, 3\], b \[3, 3\]: .*; take these"):
        ready(models.added(), profile, graphs=[{"a": (2, 3), "b": (3, 3)}])
    assert device.live() == before


def test_an_output_whose_shape_only_the_run_decides_is_refused_by_name(ready: Ready, device: Device) -> None:
    before = device.live()
    with pytest.raises(
        EngineDeserializeError, match=r"^m: output where has a shape that only the run decides.*\(x \[2, 3\]\); take"
    ):
        ready(models.where_nonzero(), ROWS, graphs=[{"x": (2, 3)}])
    assert device.live() == before


def test_shapes_values_are_refused_by_name(ready: Ready, device: Device) -> None:
    profile: Profile = (("x", (1, 4), (2, 4), (4, 4)),)
    values = ((("target", (1, 4), (2, 4), (4, 4)),),)
    with pytest.raises(EngineDeserializeError, match=r"^m: target, size holds shapes' values, which a graph would"):
        ready(models.reshaped(), profile, graphs=[{"x": (2, 4)}], on_host=("target", "size"), values=values)


@pytest.mark.parametrize("call", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiateWithFlags"])
def test_a_graph_that_cuda_refuses_is_no_engine(ready: Ready, device: Device, call: str) -> None:
    before = device.live()
    device.fail(call, 901)
    with pytest.raises(EngineDeserializeError, match=rf"^m: no CUDA graph at x \[2, 3\], scale \[3\]: cuda:0: {call}"):
        ready(models.dynamic(), ROWS, graphs=LISTED)
    assert device.live() == before


# A run at each of the three points of the profile, and one before each capture.
CAPTURES = [(4, r"x \[2, 3\], scale \[3\]"), (6, r"x \[6, 3\], scale \[3\]")]


@pytest.mark.parametrize(("after", "at"), CAPTURES)
@pytest.mark.parametrize("words", [WORDS, ""])
def test_an_engine_that_tensorrt_cannot_capture_is_refused(
    ready: Ready, device: Device, core: Core, after: int, at: str, words: str
) -> None:
    before = device.live()
    core.fail("execute_async_v3", words, after=after)
    with pytest.raises(EngineDeserializeError, match=rf"^m: no CUDA graph at {at}: m: execute_async_v3 failed"):
        ready(models.dynamic(), ROWS, graphs=LISTED)
    assert device.live() == before


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Error Code 2: OutOfMemory (Requested size was 9 bytes.)", OutOfMemoryError),
        ("Error Code 1: Cuda Runtime (an illegal memory access was encountered)", DeviceFaultError),
    ],
)
def test_what_is_wrong_with_memory_or_device_in_a_capture_stays_what_it_is(
    ready: Ready, device: Device, core: Core, text: str, kind: type[C7Error]
) -> None:
    before = device.live()
    core.fail("execute_async_v3", text, after=4)
    with pytest.raises(kind):
        ready(models.dynamic(), ROWS, graphs=LISTED)
    assert device.live() == before


def test_a_device_that_is_lost_in_a_capture_is_found_behind_other_words(
    ready: Ready, device: Device, core: Core
) -> None:
    core.fail("execute_async_v3", WORDS, after=4)
    device.fail("cudaMemsetAsync", 700)  # which is how the device is asked whether it answers
    with pytest.raises(DeviceFaultError, match=r"it was found after: m: no CUDA graph at x \[2, 3\]"):
        ready(models.dynamic(), ROWS, graphs=LISTED)


def test_a_capture_waits_no_longer_than_it_is_given_for_another(
    ready: Ready, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = threading.Lock()

    def impatient(*arguments: Any) -> Any:
        return capture_graph(*arguments, capturing=turn, timeout_s=0.01)

    monkeypatch.setattr("runtimes.tensorrt.inference.execution.capture_graph", impatient)
    before = device.live()
    with turn, pytest.raises(EngineDeserializeError, match=r"^m: another engine has been capturing .* 0\.01 s; start"):
        ready(models.dynamic(), ROWS, graphs=LISTED)
    assert device.live() == before
    assert not graphs_module._capturing.locked()


def test_a_device_that_is_lost_in_a_captured_run_is_told_by_that_run(ready: Ready, device: Device) -> None:
    engine = ready(models.dynamic(), ROWS, graphs=LISTED)
    device.fail("work", 700, after=2)  # the copies of two inputs come before it
    with pytest.raises(DeviceFaultError):
        engine.run({"x": rows(2), "scale": SCALE})
    assert not device.answers
