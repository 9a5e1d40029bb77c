"""The components on the actors: an engine dies under one, the frame is degraded, and the same handle works again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from actors.consumer import Consumer, Frame
from actors.frame_scope import frame_scope
from actors.lightglue_runtime import LightGlueRuntime
from actors.perception import Matcher, PlaceRecognition, PoseEstimation, Refiner, ReRanker
from actors.stepped import SteppedWorld, stepped
from actors.supervised_runtime import SupervisedRuntime
from messages import NS_PER_MS, InferCompleted, InferRejected, InvalidInputError, OutOfMemoryError
from runtimes import BuildConfig, FakeRuntime, hangs, raises, returns, takes_ms
from telemetry import ThermalReading
from tests.actors.perception.scripted import FAULT, GOOD, INPUTS, KEYPOINTS, NumberedTiles, frame, nth_runs, scripted

WITHIN_MS = 100.0
RESTARTED_MS = 500.0


class Flight(NamedTuple):
    world: SteppedWorld
    c7: SupervisedRuntime
    lightglue: LightGlueRuntime
    fake: FakeRuntime

    def see(self, consumer: Consumer, looked_at: Frame, name: str = "c3_matcher") -> str | None:
        with frame_scope(
            name, looked_at.frame_id, WITHIN_MS, captured_ns=looked_at.captured_ns, clock=self.world.clock
        ):
            return consumer.on_frame(looked_at)

    def matcher(self) -> Matcher:
        return Matcher(
            self.c7,
            self.lightglue,
            extractor=self.fake.entry("xfeat"),
            keypoints=KEYPOINTS,
            keyframe_every=1,
        )

    def reranker(self) -> ReRanker:
        return ReRanker(
            self.c7,
            self.lightglue,
            extractor=self.fake.entry("xfeat"),
            keypoints=KEYPOINTS,
            tile_source=NumberedTiles(),
            tiles_per_frame=10,
        )


@contextmanager
def flown(fake: FakeRuntime, *, thermal: Thermometer | None = None) -> Iterator[Flight]:
    with stepped(fake, thermal=thermal) as world:
        c7 = world.supervision.as_runtime()
        yield Flight(world, c7, LightGlueRuntime(c7, fake.entry("lightglue")), fake)


class Thermometer:
    """Reads what it is set to."""

    name = "scripted"

    def __init__(self) -> None:
        self.throttled_by: tuple[str, ...] = ()

    def read(self) -> ThermalReading:
        return ThermalReading(
            cpu_temp_c=60.0,
            gpu_temp_c=101.0 if self.throttled_by else 60.0,
            gpu_clock_mhz=1020,
            throttled_by=self.throttled_by,
        )


def test_the_engine_dies_under_the_matcher_which_goes_on_with_the_same_handle() -> None:
    with flown(scripted(lightglue=nth_runs("lightglue", {2: raises(FAULT)}))) as flight:
        consumer = flight.matcher()
        assert [flight.see(consumer, frame(frame_id)) for frame_id in range(2)] == [None, None]
        assert flight.see(consumer, frame(2)) == (
            "no result from lightglue in 2 of 2 runs: 1 inference_error, 1 engine_unavailable: error 716"
        )
        flight.world.advance_ms(RESTARTED_MS)
        assert flight.see(consumer, frame(3)) is None
        assert sorted(consumer.moved_px) == [0, 1, 2]
        assert flight.world.statistics()["lightglue"].generation == 2


@pytest.mark.parametrize("kind", ["place recognition", "refiner"])
def test_an_engine_that_dies_under_a_component_with_one_engine_comes_back_under_it(kind: str) -> None:
    model = "ultravpr" if kind == "place recognition" else "adhop"
    with flown(scripted(**{model: [GOOD[model], raises(FAULT), GOOD[model]]})) as flight:
        engine = flight.fake.entry(model)
        consumer: Consumer = (
            PlaceRecognition(flight.c7, engine=engine)
            if kind == "place recognition"
            else Refiner(flight.c7, engine=engine, viewpoints=4, every_frames=1)
        )
        assert flight.see(consumer, frame(0)) is None
        assert flight.see(consumer, frame(1)) == f"no result from {model}: inference_error: error 716"
        assert flight.see(consumer, frame(2)) == f"no result from {model}: engine_unavailable: error 716"
        flight.world.advance_ms(RESTARTED_MS)
        assert flight.see(consumer, frame(3)) is None


def test_one_component_that_loses_its_engine_costs_another_nothing() -> None:
    with flown(scripted(ultravpr=[raises(FAULT), GOOD["ultravpr"]])) as flight:
        place_recognition = PlaceRecognition(flight.c7, engine=flight.fake.entry("ultravpr"))
        matcher = flight.matcher()
        for frame_id in range(3):
            assert flight.see(place_recognition, frame(frame_id), "c2_vpr") is not None
            assert flight.see(matcher, frame(frame_id)) is None


def test_ten_matches_have_one_deadline_and_what_was_done_by_then_is_kept() -> None:
    slow = takes_ms(30, GOOD["lightglue"])
    with flown(scripted(lightglue=slow)) as flight:
        consumer = flight.reranker()
        began_ns = flight.world.clock.monotonic_ns()
        assert flight.see(consumer, frame(0), "c2_5_rerank") == (
            "no result from lightglue in 7 of 10 runs: 1 expired, 6 not asked: no outcome before the deadline"
        )
        assert sorted(consumer.scores) == [0, 1, 2]
        assert flight.world.clock.monotonic_ns() - began_ns == WITHIN_MS * NS_PER_MS


def test_a_fault_that_the_engine_survives_costs_one_tile_of_ten() -> None:
    with flown(scripted(lightglue=nth_runs("lightglue", {3: raises(OutOfMemoryError("full"))}))) as flight:
        consumer = flight.reranker()
        degraded = flight.see(consumer, frame(0), "c2_5_rerank")
        assert degraded is not None
        assert degraded.startswith("no result from lightglue in ")
        assert "1 out_of_memory" in degraded
        flight.world.advance_ms(RESTARTED_MS)
        assert flight.see(consumer, frame(1), "c2_5_rerank") is None
        assert len(consumer.scores) == 10


def test_an_engine_that_hangs_costs_the_frame_no_more_than_its_deadline() -> None:
    with flown(scripted(xfeat=hangs(GOOD["xfeat"]))) as flight:
        consumer = flight.matcher()
        began_ns = flight.world.clock.monotonic_ns()
        assert flight.see(consumer, frame(0)) == "no result from xfeat: expired: no outcome before the deadline"
        assert flight.world.clock.monotonic_ns() - began_ns == WITHIN_MS * NS_PER_MS


def test_every_run_is_recorded_as_the_consumers_for_that_frame() -> None:
    with flown(scripted()) as flight:
        matcher, reranker = flight.matcher(), flight.reranker()
        for frame_id in (7, 8):
            flight.see(matcher, frame(frame_id))
        flight.see(reranker, frame(8), "c2_5_rerank")
        outcomes = [each for each in flight.world.messages if isinstance(each, InferCompleted | InferRejected)]
        asked = {(each.consumer, each.frame_id) for each in outcomes}
        counted = {key: sum((each.consumer, each.frame_id) == key for each in outcomes) for key in asked}
        assert counted == {("c3_matcher", 7): 1, ("c3_matcher", 8): 2, ("c2_5_rerank", 8): 21}


def test_an_input_that_does_not_fit_is_told_as_such_and_the_engine_lives() -> None:
    refused = raises(InvalidInputError("lightglue: keypoints0 is float16[1, 9, 2], expected [1, 8, 2]"))
    with flown(scripted(lightglue=[refused, GOOD["lightglue"]])) as flight:
        consumer = flight.matcher()
        assert flight.see(consumer, frame(0)) is None
        assert flight.see(consumer, frame(1)) == (
            "no result from lightglue: invalid_input: lightglue: keypoints0 is float16[1, 9, 2], expected [1, 8, 2]"
        )
        assert flight.see(consumer, frame(2)) is None
        assert flight.world.statistics()["lightglue"].generation == 1


def test_the_covariance_follows_the_throttle_that_the_supervised_runtime_tells() -> None:
    board = Thermometer()
    with flown(scripted(), thermal=board) as flight:
        consumer = PoseEstimation(flight.c7)
        seen = []
        for second in range(12):
            board.throttled_by = ("gpu-throttle-alert",) if 3 <= second < 6 else ()
            flight.world.advance_ms(1000)
            assert flight.see(consumer, frame(second, captured_ms=1000 * second), "c4_pose") is None
            seen.append(consumer.covariance_mode)
        assert seen[0] == seen[-1] == "steady_state"
        assert "throttled" in seen


def test_without_telemetry_the_supervised_runtime_leaves_the_covariance_steady() -> None:
    with flown(scripted()) as flight:
        consumer = PoseEstimation(flight.c7)
        assert flight.see(consumer, frame(0), "c4_pose") is None
        assert consumer.covariance_mode == "steady_state"


def test_an_engine_named_by_its_path_is_the_one_that_flies(tmp_path: Path) -> None:
    fake = FakeRuntime({"ultravpr": returns({"descriptor": np.ones((1, 4), np.float16)})}, inputs=INPUTS)
    (tmp_path / "ultravpr.onnx").write_bytes(b"model")
    entry = fake.compile_engine(tmp_path / "ultravpr.onnx", BuildConfig())
    with stepped(fake, engines={"ultravpr": entry}) as world:
        consumer = PlaceRecognition(world.supervision.as_runtime(), engine=str(entry.path))
        with frame_scope("c2_vpr", 0, WITHIN_MS, clock=world.clock):
            assert consumer.on_frame(frame(0)) is None
        assert fake.loads("ultravpr") == 1
