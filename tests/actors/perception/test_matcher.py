"""C3 against scripted engines: a keyframe that is lost costs that keyframe."""

from __future__ import annotations

import numpy as np
import pytest

from actors.lightglue_runtime import LightGlueRuntime
from actors.perception import Matcher
from actors.perception.features import Features
from messages import ConfigError
from runtimes import FakeRuntime, raises, returns
from tests.actors.perception.scripted import (
    FAULT,
    KEYPOINTS,
    OUTPUTS,
    frame,
    nth_runs,
    rejects,
    runs_of,
    scripted,
)


def composed(runtime: FakeRuntime, keyframe_every: int = 1, keypoints: int = KEYPOINTS) -> Matcher:
    return Matcher(
        runtime,
        LightGlueRuntime(runtime, runtime.entry("lightglue")),
        extractor=runtime.entry("xfeat"),
        keypoints=keypoints,
        keyframe_every=keyframe_every,
    )


def fly(consumer: Matcher, frames: int) -> list[str | None]:
    return [consumer.on_frame(frame(frame_id)) for frame_id in range(frames)]


def test_the_frame_is_matched_against_the_last_three_keyframes() -> None:
    runtime = scripted()
    consumer = composed(runtime)
    assert fly(consumer, 6) == [None] * 6
    assert sorted(consumer.moved_px) == [2, 3, 4]
    assert runs_of(runtime, "lightglue") == 0 + 1 + 2 + 3 + 3 + 3


def test_keyframes_lie_at_least_so_many_frames_apart() -> None:
    consumer = composed(scripted(), keyframe_every=3)
    assert fly(consumer, 8) == [None] * 8
    assert sorted(consumer.moved_px) == [0, 3, 6]


def test_lightglue_gets_the_strongest_keypoints_in_its_own_dtype() -> None:
    runtime = scripted()
    consumer = composed(runtime, keypoints=12)
    fly(consumer, 2)
    inputs = runtime.calls[-1].inputs
    assert {name: (spec.shape, spec.dtype) for name, spec in inputs.items()} == {
        "keypoints0": ((1, 12, 2), "float16"),
        "descriptors0": ((1, 12, 4), "float16"),
        "keypoints1": ((1, 12, 2), "float16"),
        "descriptors1": ((1, 12, 4), "float16"),
    }


def test_movement_is_the_median_step_of_the_sure_matches() -> None:
    places = np.asarray(OUTPUTS["xfeat"]["keypoints"])
    first, second = (returns({**OUTPUTS["xfeat"], "keypoints": places + step}) for step in (0, np.array([5, -2])))
    consumer = composed(scripted(xfeat=[first, second]))
    assert fly(consumer, 2) == [None, None]
    assert consumer.moved_px == {0: (5.0, -2.0)}


def test_too_few_sure_matches_measure_nothing_and_the_frame_is_good() -> None:
    unsure = returns({**OUTPUTS["lightglue"], "scores": np.full((1, KEYPOINTS), 0.05, np.float16)})
    consumer = composed(scripted(lightglue=unsure))
    assert fly(consumer, 2) == [None, None]
    assert consumer.moved_px == {}


def test_one_lost_match_costs_that_keyframe_alone() -> None:
    steps = nth_runs("lightglue", {1 + 2 + 2: raises(FAULT)})
    consumer = composed(scripted(lightglue=steps))
    assert fly(consumer, 4) == [
        None,
        None,
        None,
        "no result from lightglue in 1 of 3 runs: 1 inference_error: error 716",
    ]
    assert sorted(consumer.moved_px) == [0, 2]


def test_after_the_deadline_no_more_keyframes_are_asked_for() -> None:
    runtime = scripted(lightglue=nth_runs("lightglue", {1 + 2 + 1: rejects("expired")}))
    consumer = composed(runtime)
    assert fly(consumer, 4)[-1] == "no result from lightglue in 3 of 3 runs: 1 expired, 2 not asked"
    assert consumer.moved_px == {}
    assert consumer.on_frame(frame(4)) is None
    assert sorted(consumer.moved_px) == [1, 2, 3], "the frame that was late is a keyframe all the same"


def test_a_frame_without_features_measures_nothing_and_is_no_keyframe() -> None:
    runtime = scripted(xfeat=nth_runs("xfeat", {3: rejects("engine_unavailable")}))
    consumer = composed(runtime)
    assert fly(consumer, 3)[-1] == "no result from xfeat: engine_unavailable"
    assert consumer.moved_px == {}
    assert consumer.on_frame(frame(3)) is None
    assert sorted(consumer.moved_px) == [0, 1]


def test_keypoints_without_heat_are_left_out_down_to_what_the_engine_takes() -> None:
    outputs = {**OUTPUTS["xfeat"], "scores": np.array([[1.0] * 12 + [0.0] * 8], np.float16)}
    assert Features.of(outputs).keypoints.shape == (1, 12, 2)
    outputs["scores"] = np.zeros((1, KEYPOINTS), np.float16)
    assert Features.of(outputs).keypoints.shape == (1, 8, 2)
    assert Features.of(outputs, least=16).descriptors.shape == (1, 16, 4)


def test_options_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="matcher keyframe_every: expected a whole number of 1 or more, found 0"):
        composed(scripted(), keyframe_every=0)
    with pytest.raises(ConfigError, match=r"matcher keypoints: expected a whole number of 1 or more, found 12\.5"):
        composed(scripted(), keypoints=12.5)  # type: ignore[arg-type]  # as a plan may hold it
