"""The demo's consumers on real engines under real supervision, and what they say when an engine gives no result."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from actors import InferenceClient, RestartPolicy, Supervision, supervise
from actors.consumer import Frame
from actors.demo.consumers import Features, Matcher, PlaceRecognition, Refiner, ReRanker, no_result
from actors.demo.frames import MovingWindow
from actors.demo.model_files import write_models
from actors.demo.networks import SIZES
from actors.demo.plan import write_flight_plan
from messages import NS_PER_MS, EngineLoaded, InferenceError, InferRejected, Message, OutOfMemoryError
from runtimes import FakeRuntime, build_inference_runtime, computes, raises, returns
from runtimes.flight_plan_file import read_flight_plan

WITHIN_MS = 20_000.0
SET = SIZES["onnx_trt_ep"]
FEATURES: dict[str, Any] = {
    "image_px": SET.extractor.image_px,
    "dtype": "float32",
    "extract_within_ms": WITHIN_MS,
    "match_within_ms": WITHIN_MS,
}
REFINING: dict[str, Any] = {
    "image_px": SET.refiner.image_px,
    "dtype": "float32",
    "viewpoints": SET.refiner.viewpoints,
    "within_ms": WITHIN_MS,
}


def frame(camera: MovingWindow, frame_id: int) -> Frame:
    return Frame(frame_id, 1, camera.read(frame_id))


class Loads:
    """Lets a test wait for an engine's n-th start, instead of sleeping."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._seen: set[tuple[str, int]] = set()

    def __call__(self, message: Message) -> None:
        if isinstance(message, EngineLoaded):
            with self._changed:
                self._seen.add((message.model, message.generation))
                self._changed.notify_all()

    def wait_for(self, model: str, *, generation: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: (model, generation) in self._seen, 60.0)


@pytest.fixture(scope="module")
def restarted() -> Loads:
    return Loads()


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory, restarted: Loads) -> Iterator[Supervision]:
    """The float32 set, compiled by ONNX Runtime and flown by the actors."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("flight")
    models = write_models(folder / "models", "onnx_trt_ep")
    plan = read_flight_plan(write_flight_plan(folder, runtime="onnx_trt_ep", models=models, flight_s=20.0))
    runtime = build_inference_runtime(plan.runtime)
    entries = {
        name: runtime.compile_engine(section.source, section.build_config()) for name, section in plan.models.items()
    }
    quick = RestartPolicy(max_restarts=5, first_delay_ns=NS_PER_MS)
    with supervise(runtime, entries, policy=quick, record=restarted) as supervision:
        yield supervision


class TestOnRealEngines:
    def test_on_the_second_lap_a_place_is_recognised(self, flight: Supervision, camera: MovingWindow) -> None:
        consumer = PlaceRecognition(
            flight.client("c2"), image_px=SET.backbone.image_px, dtype="float32", within_ms=WITHIN_MS
        )
        for frame_id in range(0, 90, 9):
            assert consumer.on_frame(frame(camera, frame_id)) is None
        assert consumer.on_frame(frame(camera, 90 + 36)) is None
        assert consumer.nearest_frame_id == 36
        assert consumer.similarity > 0.999

    def test_the_re_ranker_prefers_the_tile_that_the_window_is_over(
        self, flight: Supervision, camera: MovingWindow
    ) -> None:
        consumer = ReRanker(flight.client("c2.5"), keypoints=SET.rerank_keypoints, tiles_per_frame=5, **FEATURES)
        assert consumer.on_frame(frame(camera, 0)) is None
        assert len(consumer.scores) == 5
        for tile in (1, 4, 8):
            assert consumer.on_frame(frame(camera, 9 * tile + 1)) is None
            assert len(consumer.scores) == 10
            assert consumer.best_tile == tile

    def test_the_matcher_measures_how_far_the_window_moved(self, flight: Supervision, camera: MovingWindow) -> None:
        consumer = Matcher(flight.client("c3"), keypoints=SET.match_keypoints, keyframe_every=1, **FEATURES)
        for frame_id in range(4):
            assert consumer.on_frame(frame(camera, frame_id)) is None
        assert sorted(consumer.moved_px) == [0, 1, 2]
        scale = SET.extractor.image_px / 320
        for keyframe_id, moved in consumer.moved_px.items():
            expected = (np.array(camera.corner(keyframe_id)) - camera.corner(3)) * scale
            np.testing.assert_allclose(moved, expected, atol=3.0)

    def test_the_refinement_runs_now_and_then_and_over_plain_ground(
        self, flight: Supervision, camera: MovingWindow
    ) -> None:
        consumer = Refiner(flight.client("c3.5"), every_frames=5, **REFINING)
        ran = {}
        for frame_id in (0, 1, 5, 6, 62):
            assert consumer.on_frame(frame(camera, frame_id)) is None
            ran[frame_id] = consumer.corners_px is not None
        assert ran == {0: True, 1: False, 5: True, 6: False, 62: True}  # at 62 there is only sky

    def test_the_planned_fault_crashes_its_engine_once_and_the_engine_comes_back(
        self, flight: Supervision, restarted: Loads, camera: MovingWindow
    ) -> None:
        consumer = Refiner(flight.client("c3.5-fault"), every_frames=1, fault_at_frame=3, **REFINING)
        assert consumer.on_frame(frame(camera, 2)) is None
        degraded = consumer.on_frame(frame(camera, 4))  # frame 3 was missed
        assert degraded is not None
        assert degraded.startswith("no result from refiner: inference_error: ")
        assert "out of data bounds" in degraded
        restarted.wait_for("refiner", generation=2)
        assert consumer.on_frame(frame(camera, 5)) is None


class TestWithoutAResult:
    def flown(self, **steps: Any) -> Supervision:
        runtime = FakeRuntime(steps)
        return supervise(runtime, runtime.entries())

    def test_place_recognition_names_model_and_reason(self, camera: MovingWindow) -> None:
        with self.flown(backbone=raises(InferenceError("error 716"))) as flight:
            consumer = PlaceRecognition(flight, image_px=32, dtype="float16", within_ms=WITHIN_MS)
            assert consumer.on_frame(frame(camera, 0)) == "no result from backbone: inference_error: error 716"
        assert consumer.nearest_frame_id is None

    def test_a_frame_without_a_result_is_not_remembered(self, camera: MovingWindow) -> None:
        good = returns({"descriptor": np.ones((1, 4), np.float16)})
        with self.flown(backbone=[raises(OutOfMemoryError("full")), good]) as flight:
            consumer = PlaceRecognition(flight, image_px=32, dtype="float16", within_ms=WITHIN_MS)
            assert consumer.on_frame(frame(camera, 0)) == "no result from backbone: out_of_memory: full"
            assert consumer.on_frame(frame(camera, 3)) is None
            assert consumer.nearest_frame_id is None
            assert consumer.on_frame(frame(camera, 4)) is None
            assert consumer.nearest_frame_id == 3

    def test_a_tile_that_got_no_features_is_asked_for_again_with_the_next_frame(self, camera: MovingWindow) -> None:
        asked: list[int] = []

        def extracted(inputs: Any) -> dict[str, np.ndarray]:
            asked.append(1)
            if len(asked) == 3:
                raise OutOfMemoryError("full")
            return {
                "keypoints": np.ones((1, 20, 2), np.float32),
                "descriptors": np.ones((1, 20, 4), np.float32),
                "scores": np.ones((1, 20), np.float32),
            }

        matched = returns({"scores": np.ones((1, 8), np.float32)})
        with self.flown(extractor=computes(extracted), matcher=matched) as flight:
            consumer = ReRanker(flight, keypoints=8, tiles=3, tiles_per_frame=3, **FEATURES)
            degraded = consumer.on_frame(frame(camera, 0))
            assert degraded is not None
            assert degraded.startswith("no result from extractor: ")
            assert len(consumer.scores) == 2
            assert consumer.on_frame(frame(camera, 1)) is None
            assert sorted(consumer.scores) == [0, 1, 2]

    def test_consumers_of_unknown_models_are_degraded_and_never_raise(self, camera: MovingWindow) -> None:
        with self.flown(other=returns({})) as flight:
            client: InferenceClient = flight
            consumers = (
                PlaceRecognition(client, image_px=32, dtype="float32", within_ms=WITHIN_MS),
                ReRanker(client, keypoints=8, **FEATURES),
                Matcher(client, keypoints=8, **FEATURES),
                Refiner(client, **REFINING),
            )
            degraded = [consumer.on_frame(frame(camera, 0)) for consumer in consumers]
        assert all(text is not None and "unknown_model" in text for text in degraded)


def test_several_rejections_are_told_as_the_first_and_how_many_more() -> None:
    rejected = [InferRejected("matcher", "c3", 1, number, "expired") for number in range(3)]
    assert no_result() is None
    assert no_result(*rejected[:1]) == "no result from matcher: expired"
    assert no_result(*rejected) == "no result from matcher: expired (and 2 more)"


def test_keypoints_without_heat_are_left_out_down_to_the_matchers_least() -> None:
    outputs = {
        "keypoints": np.zeros((1, 20, 2), np.float16),
        "descriptors": np.zeros((1, 20, 4), np.float16),
        "scores": np.array([[1.0] * 12 + [0.0] * 8], np.float16),
    }
    assert Features.of(outputs).keypoints.shape == (1, 12, 2)
    outputs["scores"][:] = 0.0
    few = Features.of(outputs)
    inputs = few.against(few, 256)
    assert {name: tensor.shape for name, tensor in inputs.items()} == {
        "keypoints0": (1, 8, 2),
        "descriptors0": (1, 8, 4),
        "keypoints1": (1, 8, 2),
        "descriptors1": (1, 8, 4),
    }
