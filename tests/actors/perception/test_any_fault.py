"""Whatever engines do, a component's account of a frame is that of its requests."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.consumer import Consumer
from actors.frame_scope import frame_scope
from actors.lightglue_runtime import LightGlueRuntime
from actors.perception import Matcher, PlaceRecognition, PoseEstimation, Refiner, ReRanker
from actors.stepped import stepped
from messages import (
    DeviceContextError,
    Infer,
    InferCompleted,
    InferenceError,
    InvalidInputError,
    OutOfMemoryError,
    TransientInferenceError,
)
from runtimes import FakeRuntime, InferenceRuntime, raises, takes_ms
from runtimes.fake_steps import Step
from tests.actors.perception.scripted import GOOD, KEYPOINTS, NumberedTiles, frame, scripted

PERIOD_MS, WITHIN_MS = 333.0, 200.0
FAULTS = [
    InferenceError("716"),
    InvalidInputError("shape"),
    OutOfMemoryError("full"),
    TransientInferenceError("busy"),
    DeviceContextError("lost"),
]


def steps(model: str) -> st.SearchStrategy[list[Step]]:
    good = GOOD[model]
    step = st.one_of(
        st.just(good),
        st.sampled_from(FAULTS).map(raises),
        st.sampled_from([1.0, 20.0, 90.0, 250.0]).map(lambda duration_ms: takes_ms(duration_ms, good)),
    )
    return st.lists(step, max_size=12).map(lambda drawn: [*drawn, good])


def components(c7: InferenceRuntime, fake: FakeRuntime) -> dict[str, Consumer]:
    lightglue, extractor = LightGlueRuntime(c7, fake.entry("lightglue")), fake.entry("xfeat")
    return {
        "c2_vpr": PlaceRecognition(c7, engine=fake.entry("ultravpr")),
        "c2_5_rerank": ReRanker(
            c7, lightglue, extractor=extractor, keypoints=KEYPOINTS, tile_source=NumberedTiles(), tiles_per_frame=3
        ),
        "c3_matcher": Matcher(c7, lightglue, extractor=extractor, keypoints=KEYPOINTS),
        "c3_5_adhop": Refiner(c7, engine=fake.entry("adhop"), viewpoints=4, every_frames=2),
        "c4_pose": PoseEstimation(c7),
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.fixed_dictionaries({model: steps(model) for model in GOOD}))
def test_a_frame_is_good_exactly_where_each_of_its_requests_has_its_result(
    seed: int, scripts: dict[str, list[Step]]
) -> None:
    fake = scripted(**scripts)
    told: dict[tuple[str, int], str | None] = {}
    with stepped(fake, seed=seed) as world:
        flying = components(world.supervision.as_runtime(), fake)
        for frame_id in range(5):
            for name, component in flying.items():
                began_ns = world.clock.monotonic_ns()
                with frame_scope(name, frame_id, WITHIN_MS, clock=world.clock) as scope:
                    told[name, frame_id] = component.on_frame(frame(frame_id))
                assert world.clock.monotonic_ns() <= scope.deadline_ns, f"{name} began at {began_ns}"
            world.advance_ms(PERIOD_MS)
        results: defaultdict[tuple[str, int], list[bool]] = defaultdict(list)
        completed = {each.request_id for each in world.messages if isinstance(each, InferCompleted)}
        for message in world.messages:
            if isinstance(message, Infer):
                results[message.consumer, message.frame_id].append(message.request_id in completed)
    for key, degraded in told.items():
        assert (degraded is None) == all(results[key]), key
        assert degraded is None or degraded.startswith("no result from ")


@pytest.mark.parametrize(
    ("model", "without"),
    [
        ("ultravpr", {"c2_vpr"}),
        ("xfeat", {"c2_5_rerank", "c3_matcher"}),
        ("lightglue", {"c2_5_rerank", "c3_matcher"}),
        ("adhop", {"c3_5_adhop"}),
    ],
)
def test_an_engine_that_never_answers_degrades_those_that_ask_it_and_nobody_else(model: str, without: set[str]) -> None:
    fake = scripted(**{model: raises(InferenceError("716"))})
    degraded = set()
    with stepped(fake) as world:
        flying = components(world.supervision.as_runtime(), fake)
        for frame_id in range(20):
            for name, component in flying.items():
                with frame_scope(name, frame_id, WITHIN_MS, clock=world.clock):
                    if component.on_frame(frame(frame_id)) is not None:
                        degraded.add(name)
            world.advance_ms(PERIOD_MS)
    assert degraded == without
