"""The components on the demo's real engines under real supervision: what they see in the pictures is true."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pytest

from actors import RestartPolicy, supervise
from actors.consumer import Consumer, Frame
from actors.demo.frames import MapTiles, MovingWindow
from actors.demo.model_files import write_models
from actors.demo.networks import SIZES
from actors.demo.plan import write_flight_plan
from actors.demo.planned_fault import FaultyRefiner
from actors.frame_scope import frame_scope
from actors.lightglue_runtime import LightGlueRuntime
from actors.perception import Matcher, PlaceRecognition, Refiner, ReRanker
from messages import NS_PER_MS, EngineLoaded, Message
from runtimes import EngineCacheEntry, InferenceRuntime, build_inference_runtime
from runtimes.flight_plan_file import read_flight_plan

WITHIN_MS = 20_000.0
SET = SIZES["onnx_trt_ep"]


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


class Flight(NamedTuple):
    c7: InferenceRuntime
    lightglue: LightGlueRuntime
    engines: Mapping[str, EngineCacheEntry]


@pytest.fixture(scope="module")
def restarted() -> Loads:
    return Loads()


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory, restarted: Loads) -> Iterator[Flight]:
    """The float32 set, compiled by ONNX Runtime and flown by the actors, behind the interface of a runtime."""
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
        c7 = supervision.as_runtime()
        yield Flight(c7, LightGlueRuntime(c7, entries["matcher"]), entries)


def see(consumer: Consumer, camera: MovingWindow, frame_id: int) -> str | None:
    with frame_scope("test", frame_id, WITHIN_MS):
        return consumer.on_frame(Frame(frame_id, 1, camera.read(frame_id)))


def test_on_the_second_lap_a_place_is_recognised(flight: Flight, camera: MovingWindow) -> None:
    consumer = PlaceRecognition(flight.c7, engine=flight.engines["backbone"])
    for frame_id in range(0, 90, 9):
        assert see(consumer, camera, frame_id) is None
    assert see(consumer, camera, 90 + 36) is None
    assert consumer.nearest_frame_id == 36
    assert consumer.similarity > 0.999


def test_the_re_ranker_prefers_the_tile_that_the_window_is_over(flight: Flight, camera: MovingWindow) -> None:
    consumer = ReRanker(
        flight.c7,
        flight.lightglue,
        extractor=flight.engines["extractor"],
        keypoints=SET.rerank_keypoints,
        tile_source=MapTiles(),
        tiles_per_frame=5,
    )
    assert see(consumer, camera, 0) is None
    assert len(consumer.scores) == 5
    for tile in (1, 4, 8):
        assert see(consumer, camera, 9 * tile + 1) is None
        assert len(consumer.scores) == 10
        assert consumer.best_tile == tile


def test_the_matcher_measures_how_far_the_window_moved(flight: Flight, camera: MovingWindow) -> None:
    consumer = Matcher(
        flight.c7,
        flight.lightglue,
        extractor=flight.engines["extractor"],
        keypoints=SET.match_keypoints,
        keyframe_every=1,
    )
    for frame_id in range(4):
        assert see(consumer, camera, frame_id) is None
    assert sorted(consumer.moved_px) == [0, 1, 2]
    scale = SET.extractor.image_px / 320
    for keyframe_id, moved in consumer.moved_px.items():
        expected = (np.array(camera.corner(keyframe_id)) - camera.corner(3)) * scale
        np.testing.assert_allclose(moved, expected, atol=3.0)


def test_the_refinement_runs_now_and_then_and_over_plain_ground(flight: Flight, camera: MovingWindow) -> None:
    consumer = Refiner(flight.c7, engine=flight.engines["refiner"], viewpoints=SET.refiner.viewpoints)
    ran = {}
    for frame_id in (0, 1, 5, 6, 62):
        assert see(consumer, camera, frame_id) is None
        ran[frame_id] = consumer.corners_px is not None
    assert ran == {0: True, 1: False, 5: True, 6: False, 62: True}  # at 62 there is only sky


def test_the_planned_fault_crashes_its_engine_once_and_the_engine_comes_back(
    flight: Flight, restarted: Loads, camera: MovingWindow
) -> None:
    consumer = FaultyRefiner(
        flight.c7,
        engine=flight.engines["refiner"],
        viewpoints=SET.refiner.viewpoints,
        fault_at_frame=3,
        every_frames=1,
    )
    assert see(consumer, camera, 2) is None
    degraded = see(consumer, camera, 4)  # frame 3 was missed
    assert degraded is not None
    assert degraded.startswith("no result from refiner: inference_error: ")
    assert "out of data bounds" in degraded
    restarted.wait_for("refiner", generation=2)
    assert see(consumer, camera, 5) is None
