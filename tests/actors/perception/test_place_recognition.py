"""C2 against scripted engines, with nothing but the interface of a runtime."""

from __future__ import annotations

import numpy as np
import pytest

from actors.perception import PlaceRecognition
from messages import ConfigError, OutOfMemoryError
from runtimes import raises, returns
from tests.actors.perception.scripted import FAULT, GOOD, frame, rejects, scripted


def test_the_engine_gets_pictures_of_its_own_size_and_dtype() -> None:
    runtime = scripted()
    consumer = PlaceRecognition(runtime, engine=runtime.entry("ultravpr"))
    assert consumer.on_frame(frame(0)) is None
    assert runtime.calls[0].inputs == runtime.entry("ultravpr").inputs


def test_the_nearest_of_the_remembered_frames_is_recognised() -> None:
    first, second = (returns({"descriptor": np.eye(4, dtype=np.float16)[[axis]]}) for axis in (0, 1))
    runtime = scripted(ultravpr=[first, second, second])
    consumer = PlaceRecognition(runtime, engine=runtime.entry("ultravpr"), remember_every=1)
    recognised = []
    for frame_id in range(3):
        assert consumer.on_frame(frame(frame_id)) is None
        recognised.append((consumer.nearest_frame_id, consumer.similarity))
    assert recognised == [(None, 0.0), (0, 0.0), (1, 1.0)]


def test_of_the_remembered_the_oldest_make_room() -> None:
    runtime = scripted()
    consumer = PlaceRecognition(runtime, engine=runtime.entry("ultravpr"), remember_every=1, remembered_max=2)
    for frame_id in range(4):
        assert consumer.on_frame(frame(frame_id)) is None
    assert consumer.nearest_frame_id == 1


def test_a_frame_without_a_result_is_degraded_and_not_remembered() -> None:
    runtime = scripted(ultravpr=[raises(OutOfMemoryError("full")), GOOD["ultravpr"]])
    consumer = PlaceRecognition(runtime, engine=runtime.entry("ultravpr"))
    assert consumer.on_frame(frame(0)) == "no result from ultravpr: out_of_memory: full"
    recognised = []
    for frame_id in (3, 4):
        assert consumer.on_frame(frame(frame_id)) is None
        recognised.append(consumer.nearest_frame_id)
    assert recognised == [None, 3]


def test_nothing_of_an_older_frame_is_left_in_a_degraded_one() -> None:
    runtime = scripted(ultravpr=[GOOD["ultravpr"], GOOD["ultravpr"], raises(FAULT), rejects("shed")])
    consumer = PlaceRecognition(runtime, engine=runtime.entry("ultravpr"), remember_every=1)
    assert [consumer.on_frame(frame(frame_id)) for frame_id in range(4)] == [
        None,
        None,
        "no result from ultravpr: inference_error: error 716",
        "no result from ultravpr: shed",
    ]
    assert (consumer.nearest_frame_id, consumer.similarity) == (None, 0.0)


@pytest.mark.parametrize("option", ["remember_every", "remembered_max"])
def test_options_that_mean_nothing_are_refused(option: str) -> None:
    runtime = scripted()
    with pytest.raises(ConfigError, match=f"place recognition {option}: expected a whole number of 1 or more"):
        PlaceRecognition(runtime, engine=runtime.entry("ultravpr"), **{option: 0})
    assert runtime.loaded == ()
