"""The components by their names in the registry, all on one runtime and one LightGlue."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.airborne_bootstrap import _STRATEGY_REGISTRY, Config, compose_root, register_airborne_strategies
from actors.consumer import load_class
from actors.frame_scope import frame_scope
from actors.lightglue_runtime import LightGlueRuntime
from actors.perception import PoseEstimation
from actors.stepped import stepped
from actors.strategy_registry import AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS, AIRBORNE_STRATEGIES
from messages import ConfigError
from runtimes import BuildConfig, FakeRuntime
from tests.actors.perception.scripted import GOOD, INPUTS, KEYPOINTS, frame

TILES = "tests.actors.perception.scripted:NumberedTiles"
EVERY_STRATEGY = [
    (component, strategy, path)
    for component, strategies in AIRBORNE_STRATEGIES.items()
    for strategy, path in strategies.items()
]


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    before = dict(_STRATEGY_REGISTRY)
    _STRATEGY_REGISTRY.clear()
    register_airborne_strategies()
    yield
    _STRATEGY_REGISTRY.clear()
    _STRATEGY_REGISTRY.update(before)


@pytest.mark.parametrize(("component", "strategy", "path"), EVERY_STRATEGY)
def test_a_strategy_is_a_consumer_that_takes_what_its_component_needs(component: str, strategy: str, path: str) -> None:
    cls = load_class(path, f"{component} {strategy}")
    assert callable(getattr(cls, "on_frame", None))
    assert set(AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS[component]) <= set(inspect.signature(cls).parameters)


def test_all_components_fly_composed_by_name_from_the_paths_of_engines(tmp_path: Path) -> None:
    fake = FakeRuntime(GOOD, inputs=INPUTS)
    engines = {}
    for model in GOOD:
        (tmp_path / f"{model}.onnx").write_bytes(b"model")
        engines[model] = fake.compile_engine(tmp_path / f"{model}.onnx", BuildConfig())
    extractor = str(engines["xfeat"].path)
    blocks: dict[str, object] = {
        "c2_vpr": {"strategy": "place_recognition", "options": {"engine": str(engines["ultravpr"].path)}},
        "c2_5_rerank": {
            "strategy": "reranker",
            "options": {"extractor": extractor, "keypoints": KEYPOINTS, "tile_source": TILES},
        },
        "c3_matcher": {"strategy": "matcher", "options": {"extractor": extractor, "keypoints": KEYPOINTS}},
        "c3_5_adhop": {
            "strategy": "refiner",
            "options": {"engine": str(engines["adhop"].path), "viewpoints": 8},
        },
        "c4_pose": {"strategy": "pose"},
    }
    with stepped(fake, engines=engines) as world:
        c7 = world.supervision.as_runtime()
        lightglue = LightGlueRuntime(c7, engines["lightglue"])
        components = compose_root(Config(components=blocks), {"c7_inference": c7, "c3_lightglue_runtime": lightglue})
        assert list(components) == list(blocks)
        for frame_id in range(3):
            for name, component in components.items():
                with frame_scope(name, frame_id, 1000.0, clock=world.clock):
                    assert component.on_frame(frame(frame_id)) is None  # type: ignore[attr-defined]
        assert {model: fake.loads(model) for model in GOOD} == dict.fromkeys(GOOD, 1)


def test_in_a_replay_without_c7_the_pose_is_composed_and_steady() -> None:
    (pose,) = compose_root(Config(mode="replay", components={"c4_pose": {"strategy": "pose"}}), {}).values()
    assert isinstance(pose, PoseEstimation)
    assert pose.on_frame(frame(0)) is None
    assert pose.covariance_mode == "steady_state"


def test_an_option_that_a_component_does_not_have_is_refused_by_name() -> None:
    block = {"strategy": "pose", "options": {"covariance": "fast"}}
    with pytest.raises(ConfigError, match=r"c4_pose.*covariance"):
        compose_root(Config(mode="replay", components={"c4_pose": block}), {})
