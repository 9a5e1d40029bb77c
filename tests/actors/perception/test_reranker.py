"""C2.5 against scripted engines: a tile that is lost costs that tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from actors.lightglue_runtime import LightGlueRuntime
from actors.perception import ReRanker
from messages import ConfigError, OutOfMemoryError
from runtimes import FakeRuntime, raises, returns
from runtimes.fake_steps import Step
from tests.actors.perception.scripted import (
    FAULT,
    KEYPOINTS,
    OUTPUTS,
    NumberedTiles,
    frame,
    nth_runs,
    rejects,
    runs_of,
    scripted,
)

HERE = "tests.actors.perception.test_reranker"


class GreyTiles:
    """A map whose tiles are all of one colour."""

    def __init__(self, grey: int, side: int = 16) -> None:
        self._tile = np.full((side, side, 3), grey, np.uint8)

    def read(self, _frame_id: int) -> npt.NDArray[np.uint8]:
        return self._tile


class Unreadable:
    """Looks like a frame source at first."""


class BrokenTiles:
    def read(self, _frame_id: int) -> npt.NDArray[np.float32]:
        return np.zeros((4, 4, 3), np.float32)


def composed(runtime: FakeRuntime, **options: str | int) -> ReRanker:
    return ReRanker(
        runtime,
        LightGlueRuntime(runtime, runtime.entry("lightglue")),
        extractor=runtime.entry("xfeat"),
        keypoints=KEYPOINTS,
        **{"tile_source": NumberedTiles(), "tiles_per_frame": 10, **options},  # type: ignore[arg-type]
    )


def sure_of(total: float) -> Step:
    scores = np.full((1, KEYPOINTS), total / KEYPOINTS, np.float32)
    return returns({"matches": OUTPUTS["lightglue"]["matches"], "scores": scores})


def test_ten_tiles_are_matched_and_the_one_with_the_most_certain_matches_is_kept() -> None:
    certain: Sequence[float] = (1, 2, 3, 9, 4, 5, 6, 7, 8, 1)
    runtime = scripted(lightglue=[sure_of(total) for total in certain])
    consumer = composed(runtime)
    assert consumer.on_frame(frame(0)) is None
    assert consumer.best_tile == 3
    assert [round(score) for score in consumer.scores.values()] == list(certain)
    assert (runs_of(runtime, "xfeat"), runs_of(runtime, "lightglue")) == (11, 10)


def test_tiles_are_read_once_and_made_a_few_at_a_time() -> None:
    runtime, tiles = scripted(), NumberedTiles()
    consumer = ReRanker(
        runtime,
        LightGlueRuntime(runtime, runtime.entry("lightglue")),
        extractor=runtime.entry("xfeat"),
        keypoints=KEYPOINTS,
        tile_source=tiles,
        tiles_per_frame=4,
    )
    seen = []
    for frame_id in range(4):
        assert consumer.on_frame(frame(frame_id)) is None
        seen.append(len(consumer.scores))
    assert seen == [4, 8, 10, 10]
    assert tiles.read_tiles == list(range(10))
    assert runs_of(runtime, "xfeat") == 4 + 10


def test_three_lost_matches_cost_three_tiles_and_the_best_of_the_others_is_kept() -> None:
    steps = nth_runs("lightglue", {2: raises(OutOfMemoryError("full")), 5: rejects("shed"), 10: rejects("shed")})
    consumer = composed(scripted(lightglue=steps))
    assert consumer.on_frame(frame(0)) == ("no result from lightglue in 3 of 10 runs: 1 out_of_memory, 2 shed: full")
    assert sorted(consumer.scores) == [0, 2, 3, 5, 6, 7, 8]
    assert consumer.best_tile == 0


def test_after_the_deadline_no_more_tiles_are_asked_for_and_it_is_told_how_many() -> None:
    runtime = scripted(lightglue=nth_runs("lightglue", {4: rejects("expired")}))
    consumer = composed(runtime)
    assert consumer.on_frame(frame(0)) == ("no result from lightglue in 7 of 10 runs: 1 expired, 6 not asked")
    assert sorted(consumer.scores) == [0, 1, 2]
    assert runs_of(runtime, "lightglue") == 4


def test_a_deadline_that_passes_while_tiles_are_made_ends_the_matching_as_well() -> None:
    runtime = scripted(xfeat=nth_runs("xfeat", {2: rejects("expired")}))
    consumer = composed(runtime)
    assert consumer.on_frame(frame(0)) == "no result from xfeat in 10 of 11 runs: 1 expired, 9 not asked"
    assert consumer.best_tile is None
    assert runs_of(runtime, "lightglue") == 0
    assert consumer.on_frame(frame(1)) is None
    assert len(consumer.scores) == 10


def test_a_tile_that_got_no_features_is_asked_for_again_with_the_next_frame() -> None:
    consumer = composed(scripted(xfeat=nth_runs("xfeat", {3: raises(FAULT)})))
    assert consumer.on_frame(frame(0)) == "no result from xfeat in 1 of 11 runs: 1 inference_error: error 716"
    assert sorted(consumer.scores) == [0, 2, 3, 4, 5, 6, 7, 8, 9]
    assert consumer.on_frame(frame(1)) is None
    assert sorted(consumer.scores) == list(range(10))


def test_without_the_frames_own_features_nothing_else_is_asked_for() -> None:
    runtime = scripted(xfeat=[*nth_runs("xfeat", {12: raises(FAULT)})])
    consumer = composed(runtime)
    assert consumer.on_frame(frame(0)) is None
    assert consumer.on_frame(frame(1)) == "no result from xfeat: inference_error: error 716"
    assert consumer.best_tile is None
    assert consumer.scores == {}
    assert runs_of(runtime, "lightglue") == 10


def test_the_tiles_come_from_the_class_that_the_options_name() -> None:
    runtime = scripted()
    consumer = composed(runtime, tile_source=f"{HERE}:GreyTiles", tile_grey=7)
    assert consumer.on_frame(frame(0)) is None
    assert len(consumer.scores) == 10


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tile_source": f"{HERE}:GreyTiles"}, r"\[\] do not fit GreyTiles.*missing a required argument: 'grey'"),
        ({"tile_source": f"{HERE}:GreyTiles", "tile_gray": 7}, r"\['tile_gray'\] do not fit GreyTiles"),
        ({"tile_source": f"{HERE}:Unreadable"}, "has no method read"),
        ({"tile_source": f"{HERE}:Missing"}, "expected a class Missing"),
        (
            {"tile_source": f"{HERE}:BrokenTiles"},
            r"tile 0.*expected uint8\[height, width, 3\], found float32\[4, 4, 3\]",
        ),
        ({"tile_folder": "map"}, "tile_folder beside a tile_source that is an object"),
        ({"keypoint": 3}, "found the options keypoint; expected its own, and tile_"),
        ({"tiles_per_frame": 0}, "re-ranker tiles_per_frame: expected a whole number of 1 or more, found 0"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_an_engine_is_loaded(
    options: dict[str, str | int], text: str
) -> None:
    runtime = scripted()
    with pytest.raises(ConfigError, match=text):
        composed(runtime, **options)
    assert runtime.loaded == ("lightglue",)
