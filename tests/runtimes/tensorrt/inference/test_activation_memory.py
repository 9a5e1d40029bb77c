"""The scratch memory of one engine or of all: who joins, who runs, and what is left when a device has too little."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule, run_state_machine_as_test

from messages import C7Error, DeviceFaultError, InferenceError, OutOfMemoryError
from runtimes.cuda.port import Cuda, DeviceMemory
from runtimes.tensorrt.inference.activation_memory import TURN_TIMEOUT_S, ActivationMemory
from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.engines import ROWS, Ready

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device


@pytest.fixture
def activations(cuda: Cuda) -> ActivationMemory:
    return ActivationMemory(cuda)


def test_the_block_is_as_large_as_its_largest_member_needs(activations: ActivationMemory) -> None:
    activations.join("small", 256)
    with activations.running("small") as (first, size):
        assert size == 256
    activations.join("smaller", 128)
    with activations.running("smaller") as scratch:
        assert scratch == (first, 256)
    activations.join("large", 1024)
    with activations.running("small") as (_, size):
        assert size == 1024
    assert activations.size_bytes == 1024
    for subject, size in [("small", 256), ("smaller", 128), ("large", 1024)]:
        activations.leave(subject, size)


def test_a_block_that_was_outgrown_is_given_back_and_whoever_runs_is_told_the_new_address(
    activations: ActivationMemory, device: Device
) -> None:
    own = len(device.live())
    activations.join("vpr", 256)
    with activations.running("vpr") as before:
        pass
    activations.join("matcher", 512)
    assert len(device.live()) == own + 1
    with activations.running("vpr") as (address, size):
        assert (address, size) != before
        device.bytes_at(address, size)[:] = 1
    activations.leave("matcher", 512)
    activations.leave("vpr", 256)


def test_the_block_goes_with_the_last_member_and_comes_back_with_the_next(
    activations: ActivationMemory, device: Device
) -> None:
    own = device.live()
    activations.join("vpr", 256)
    activations.join("vpr", 256)
    activations.leave("vpr", 256)
    assert activations.size_bytes == 256
    activations.leave("vpr", 256)
    assert device.live() == own
    assert activations.size_bytes == 0
    with pytest.raises(InferenceError, match="vpr: expected activation memory, found none: it was given back"):
        activations.running("vpr").__enter__()
    activations.join("matcher", 64)
    assert activations.size_bytes == 64
    activations.leave("matcher", 64)


def test_an_engine_that_needs_no_scratch_memory_has_an_address_all_the_same(activations: ActivationMemory) -> None:
    activations.join("identity", 0)
    with activations.running("identity") as (address, size):
        assert address != 0
        assert size == 0
    activations.leave("identity", 0)


def test_a_device_with_too_little_refuses_the_larger_engine_and_the_others_fly_on(
    activations: ActivationMemory, device: Device
) -> None:
    activations.join("vpr", 256)
    with activations.running("vpr") as before:
        pass
    device.memory.total_bytes = device.memory.used_bytes + 512
    expected = (
        r"matcher: its activations need 4096 bytes \(device_memory_size_v2\), found 512 free of \d+: .*out of memory"
    )
    with pytest.raises(OutOfMemoryError, match=expected):
        activations.join("matcher", 4096)
    with activations.running("vpr") as after:
        assert after == before
    activations.leave("vpr", 256)
    assert activations.size_bytes == 0, "the engine that was refused is no member"


def test_a_first_engine_that_finds_no_memory_leaves_nothing(activations: ActivationMemory, device: Device) -> None:
    own = device.live()
    device.fail("cudaMalloc", 2)
    with pytest.raises(OutOfMemoryError, match="vpr: its activations need 64 bytes"):
        activations.join("vpr", 64)
    assert device.live() == own
    activations.join("vpr", 64)
    activations.leave("vpr", 64)


def test_a_device_that_is_lost_meanwhile_is_told_as_that(activations: ActivationMemory, device: Device) -> None:
    activations.join("vpr", 64)
    device.fail("cudaMalloc", 719)
    with pytest.raises(DeviceFaultError, match="cudaErrorLaunchFailure"):
        activations.join("matcher", 128)
    with pytest.raises(DeviceFaultError):
        activations.leave("vpr", 64)
    assert activations.size_bytes == 0


def test_two_runs_never_hold_the_block_at_once(activations: ActivationMemory) -> None:
    activations.join("vpr", 64)
    running: list[str] = []

    def run(subject: str) -> None:
        for _ in range(200):
            with activations.running(subject):
                running.append(subject)
                assert running == [subject]
                running.remove(subject)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(run, f"engine {number}") for number in range(4)]:
            done.result(timeout=60)
    activations.leave("vpr", 64)


@pytest.mark.parametrize("what", ["running", "join", "leave"])
def test_nobody_waits_for_ever_for_a_run_that_does_not_end(activations: ActivationMemory, what: str) -> None:
    activations.join("vpr", 64)
    calls: dict[str, Callable[[], object]] = {
        "running": lambda: activations.running("matcher", timeout_s=0).__enter__(),
        "join": lambda: activations.join("matcher", 64, timeout_s=0),
        "leave": lambda: activations.leave("matcher", 64, timeout_s=0),
    }
    holds, ends = threading.Event(), threading.Event()

    def hang() -> None:
        with activations.running("vpr"):
            holds.set()
            assert ends.wait(60)

    expected = (
        "matcher: another engine has held the activation memory that they share for more than 0 s; set"
        r" share_activation_memory = false in \[runtime.tensorrt\]"
    )
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(hang)
        try:
            assert holds.wait(60)
            with pytest.raises(InferenceError, match=expected):
                calls[what]()
        finally:
            ends.set()
        hanging.result(timeout=60)
    assert activations.size_bytes == 64
    activations.leave("vpr", 64)


def test_a_run_that_raises_lets_the_next_one_in(activations: ActivationMemory) -> None:
    activations.join("vpr", 64)
    with pytest.raises(InferenceError, match="mine"), activations.running("vpr"):
        raise InferenceError("mine")
    with activations.running("vpr", timeout_s=0) as (_, size):
        assert size == 64
    activations.leave("vpr", 64)


class Watched(ActivationMemory):
    """Remembers how much was under way on the device when whoever ran in it was done."""

    def __init__(self, cuda: Cuda, device: Device) -> None:
        super().__init__(cuda)
        self._device = device
        self.under_way: list[int] = []

    @contextmanager
    def running(self, subject: str, *, timeout_s: float = TURN_TIMEOUT_S) -> Iterator[tuple[int, int]]:
        try:
            with super().running(subject, timeout_s=timeout_s) as scratch:
                yield scratch
        finally:
            self.under_way.append(self._device.queued())


def test_whoever_ran_in_shared_memory_leaves_nothing_under_way_in_it_whichever_wait_fails(
    ready: Ready, cuda: Cuda, device: Device
) -> None:
    shared = Watched(cuda, device)
    for after in range(20):
        device.fail("cudaStreamSynchronize", 1, after=after)
        try:
            ready(models.dynamic(), ROWS, graphs=[{"x": (2, 3)}], activations=shared)
        except C7Error:
            continue
        break
    device._failures.clear()
    assert after >= 4, "three runs of the warm-up wait, and so does the one before a capture"
    assert set(shared.under_way) == {0}


class HostBlock:
    def __init__(self, blocks: list[HostBlock], size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.address = id(self)
        self._blocks = blocks
        blocks.append(self)

    def free(self) -> None:
        self._blocks.remove(self)


class Accountant:
    """As much of `Cuda` as gives out memory, up to a limit."""

    LIMIT_BYTES = 10

    def __init__(self) -> None:
        self.blocks: list[HostBlock] = []

    def allocate(self, size_bytes: int) -> DeviceMemory:
        if size_bytes > self.LIMIT_BYTES:
            raise OutOfMemoryError("full")
        return HostBlock(self.blocks, size_bytes)

    def memory(self) -> tuple[int, int]:
        return self.LIMIT_BYTES, self.LIMIT_BYTES


class AnyOrder(RuleBasedStateMachine):
    """Engines come and go: one block at most, never smaller than any member's need, none without members."""

    members = Bundle("members")

    @initialize()
    def open(self) -> None:
        self.cuda = Accountant()
        self.activations = ActivationMemory(self.cuda)  # type: ignore[arg-type]
        self.needs: list[int] = []

    @rule(target=members, size=st.integers(0, Accountant.LIMIT_BYTES))
    def joins(self, size: int) -> int:
        self.activations.join("engine", size)
        self.needs.append(size)
        return size

    @rule(size=st.integers(Accountant.LIMIT_BYTES + 1, 2 * Accountant.LIMIT_BYTES))
    def is_refused(self, size: int) -> None:
        before = [block.address for block in self.cuda.blocks]
        with pytest.raises(OutOfMemoryError):
            self.activations.join("engine", size)
        assert [block.address for block in self.cuda.blocks] == before

    @rule(size=consumes(members))
    def leaves(self, size: int) -> None:
        self.activations.leave("engine", size)
        self.needs.remove(size)
        assert len(self.cuda.blocks) == bool(self.needs)

    @rule(size=members)
    def runs(self, size: int) -> None:
        with self.activations.running("engine") as (address, size_bytes):
            assert [(block.address, block.size_bytes) for block in self.cuda.blocks] == [(address, size_bytes)]
            assert size_bytes >= max(self.needs) >= size


def test_engines_may_come_and_go_in_any_order() -> None:
    run_state_machine_as_test(AnyOrder, settings=settings(max_examples=50, stateful_step_count=20, deadline=None))
