"""C3.5 against scripted engines."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from actors.demo.planned_fault import FaultyRefiner
from actors.perception import Refiner
from actors.perception.pictures import to_grey_patch
from messages import ConfigError, Tensor
from runtimes import computes, raises
from tests.actors.perception.scripted import FAULT, GOOD, OUTPUTS, frame, plain_frame, rejects, runs_of, scripted


class Viewpoints:
    """An engine that keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.pictures: list[tuple[Tensor, Tensor]] = []

    def __call__(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        self.asked.append(int(np.asarray(inputs["viewpoint"])[0]))
        self.pictures.append((np.array(inputs["query"]), np.array(inputs["reference"])))
        return OUTPUTS["adhop"]


def test_it_is_asked_now_and_then_and_on_plain_ground() -> None:
    runtime = scripted()
    consumer = Refiner(runtime, engine=runtime.entry("adhop"), viewpoints=8, every_frames=3)
    refined = []
    for looked_at in (frame(0), frame(1), plain_frame(2), frame(3), frame(4)):
        assert consumer.on_frame(looked_at) is None
        refined.append(consumer.corners_px is not None)
    assert refined == [True, False, True, True, False]
    assert runs_of(runtime, "adhop") == 3


def test_the_reference_is_the_frame_before_whether_that_was_refined_or_not() -> None:
    engine = Viewpoints()
    runtime = scripted(adhop=computes(engine))
    consumer = Refiner(runtime, engine=runtime.entry("adhop"), viewpoints=8, every_frames=2)
    for frame_id in range(3):
        consumer.on_frame(frame(frame_id))
    spec = runtime.entry("adhop").inputs["query"]
    patches = [to_grey_patch(frame(frame_id).image, spec) for frame_id in range(3)]
    seen = [(np.asarray(query), np.asarray(reference)) for query, reference in engine.pictures]
    np.testing.assert_array_equal(seen, [(patches[0], patches[0]), (patches[2], patches[1])])


def test_the_viewpoint_is_one_that_the_network_has() -> None:
    engine = Viewpoints()
    runtime = scripted(adhop=computes(engine))
    consumer = Refiner(runtime, engine=runtime.entry("adhop"), viewpoints=4, every_frames=1)
    for looked_at in (frame(0), plain_frame(1)):
        assert consumer.on_frame(looked_at) is None
    assert engine.asked == [3, 0]


def test_without_a_result_there_are_no_corners_and_the_reason_is_told() -> None:
    runtime = scripted(adhop=[GOOD["adhop"], raises(FAULT), rejects("expired"), GOOD["adhop"]])
    consumer = Refiner(runtime, engine=runtime.entry("adhop"), viewpoints=8, every_frames=1)
    assert consumer.on_frame(frame(0)) is None
    assert consumer.on_frame(frame(1)) == "no result from adhop: inference_error: error 716"
    assert consumer.corners_px is None
    assert consumer.on_frame(frame(2)) == "no result from adhop: expired"
    assert consumer.on_frame(frame(3)) is None
    assert consumer.corners_px is not None


@pytest.mark.parametrize("wrong", [{"viewpoints": 0}, {"every_frames": 0}, {"plain_below": -0.1}])
def test_options_that_mean_nothing_are_refused(wrong: dict[str, int]) -> None:
    runtime = scripted()
    with pytest.raises(ConfigError, match=f"refiner {next(iter(wrong))}: expected a"):
        Refiner(runtime, engine=runtime.entry("adhop"), **{"viewpoints": 4, **wrong})
    assert runtime.loaded == ()


@pytest.mark.parametrize(("fault_at_frame", "asked"), [(-1, [3, 3, 3]), (0, [4, 3, 3]), (2, [3, 4, 3])])
def test_the_planned_fault_asks_once_for_a_viewpoint_that_is_not_there(fault_at_frame: int, asked: list[int]) -> None:
    engine = Viewpoints()
    runtime = scripted(adhop=computes(engine))
    consumer = FaultyRefiner(
        runtime, engine=runtime.entry("adhop"), viewpoints=4, fault_at_frame=fault_at_frame, every_frames=1
    )
    for frame_id in (0, 3, 4):
        assert consumer.on_frame(frame(frame_id)) is None
    assert engine.asked == asked
