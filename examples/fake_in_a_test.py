"""A component's tests, with scripted engines: what it does while its engine restarts, hangs, or is short of memory.

    python -m pytest examples/fake_in_a_test.py

No GPU, model, thread or sleep: the actors of a flight run here one after the other, on a clock that only the test
moves. Needs the extra `testing`, and pytest.
"""
# ruff: noqa: S101

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from actors import frame_scope
from actors.stepped import SteppedWorld, stepped
from messages import (
    NS_PER_MS,
    InferenceError,
    InferRejected,
    OutOfMemoryError,
    RequestRejectedError,
    Tensor,
    TransientInferenceError,
)
from runtimes import EngineCacheEntry, FakeRuntime, InferenceRuntime, hangs, raises, returns, takes_ms
from runtimes.fake_steps import Step

DESCRIPTOR = returns({"descriptor": np.ones((1, 4), np.float32)})
IMAGE = np.zeros((1, 3, 32, 32), np.float32)


class Recogniser:
    """The component that is tested. It is written against the interface and knows nothing of actors or of the test."""

    def __init__(self, c7_inference: InferenceRuntime, engine: EngineCacheEntry) -> None:
        self._runtime = c7_inference
        self._handle = c7_inference.deserialize_engine(engine)
        self.descriptor: Tensor | None = None

    def look(self, image: Tensor) -> str | None:
        """None where the frame is good, else why it is degraded. The descriptor of a degraded frame is None."""
        self.descriptor = None
        try:
            self.descriptor = self._runtime.infer(self._handle, {"image": image})["descriptor"]
        except RequestRejectedError as rejected:
            return rejected.reason
        except (InferenceError, OutOfMemoryError) as error:
            return str(error)
        return None


class Flight:
    """Drives the component as a flight does: each frame in a scope of its own, with 100 ms for all of its calls."""

    def __init__(self, world: SteppedWorld, recogniser: Recogniser) -> None:
        self.world = world
        self.recogniser = recogniser

    def look(self, frame_id: int) -> str | None:
        with frame_scope("c2_vpr", frame_id, within_ms=100, clock=self.world.clock):
            return self.recogniser.look(IMAGE)


@contextmanager
def flight(*script: Step) -> Iterator[Flight]:
    fake = FakeRuntime({"ultravpr": script})
    with stepped(fake) as world:
        yield Flight(world, Recogniser(world.supervision.as_runtime(), fake.entry("ultravpr")))


def test_a_frame_is_degraded_while_the_engine_restarts_and_the_same_handle_works_again() -> None:
    with flight(DESCRIPTOR, raises(InferenceError("enqueueV3 failed")), DESCRIPTOR) as flown:
        assert flown.look(1) is None
        assert flown.look(2) == "enqueueV3 failed"
        assert flown.recogniser.descriptor is None  # never that of the frame before
        assert flown.look(3) == "engine_unavailable"
        flown.world.advance_ms(500)
        assert flown.look(4) is None
        assert flown.world.statistics()["ultravpr"].restarts == 1


def test_a_run_that_hangs_costs_its_frame_the_deadline_and_no_more() -> None:
    with flight(hangs(DESCRIPTOR)) as flown:
        begun_ns = flown.world.clock.monotonic_ns()
        assert flown.look(1) == "expired"
        assert flown.world.clock.monotonic_ns() - begun_ns == 100 * NS_PER_MS


@pytest.mark.parametrize(
    "error", [TransientInferenceError("CUDA error 600, not ready"), OutOfMemoryError("no room for 64 MiB")]
)
def test_after_a_fault_that_the_engine_survives_the_next_frame_is_good(error: Exception) -> None:
    with flight(raises(error), DESCRIPTOR) as flown:
        assert flown.look(1) == str(error)
        assert flown.look(2) is None


def test_the_recording_says_which_frame_of_which_component_had_no_result() -> None:
    with flight(takes_ms(150, DESCRIPTOR)) as flown:
        assert flown.look(7) == "expired"
        [rejected] = [message for message in flown.world.messages if isinstance(message, InferRejected)]
        assert (rejected.consumer, rejected.frame_id) == ("c2_vpr", 7)
