"""The airborne binary's configuration: whatever its type, what is wrong is named with key, expected and found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

from actors import airborne_bootstrap
from actors.airborne_bootstrap import build_pre_constructed, compose_root
from actors.airborne_config import (
    C7AirborneConfig,
    Config,
    read_c7_inference,
    read_component,
    read_mode,
)
from messages import ConfigError
from runtimes import C7InferenceConfig
from runtimes.flight_plan import ThermalSection

C7_KEYS = (
    "runtime, device, device_index, provider, engine_dir, threads, storage_room_bytes, timing_cache_dir, tensorrt,"
    " lightglue_engine, within_ms, priorities, self_test_tolerances, load_timeout_s, run_limit_ms, runs_at_once,"
    " thermal"
)


@dataclass
class BinarysOwnBlock:
    """As another program would write it, with fields that are its own affair."""

    runtime: str = "tensorrt"
    device: str = "cuda"
    lightglue_engine: Path = Path("lightglue.engine")
    watched_by: tuple[str, ...] = ("c13_fdr",)


@dataclass
class BinarysOwnConfig:
    mode: str = "airborne"
    components: Mapping[str, object] = field(default_factory=lambda: {"c7_inference": BinarysOwnBlock()})


def test_an_unconfigured_block_is_the_workstation_baseline() -> None:
    c7 = read_c7_inference(Config(components={"c7_inference": {}}))
    assert c7 == C7AirborneConfig()
    assert (c7.runtime, c7.device, c7.lightglue_engine) == ("pytorch_fp16", "cpu", None)


def test_a_configuration_without_the_block_has_none() -> None:
    assert read_c7_inference(Config()) is None


def test_the_binarys_own_types_are_read_as_they_are() -> None:
    own = BinarysOwnConfig()
    assert read_mode(own) == "airborne"
    assert read_c7_inference(own) == C7AirborneConfig(
        runtime="tensorrt", device="cuda", lightglue_engine=Path("lightglue.engine")
    )


@pytest.mark.parametrize(
    "block",
    [
        C7InferenceConfig(device_index=1),
        C7AirborneConfig(device_index=1),
        {"device_index": 1},
    ],
    ids=lambda block: type(block).__name__,
)
def test_a_block_is_a_struct_or_a_mapping(block: object) -> None:
    assert read_c7_inference(Config(components={"c7_inference": block})) == C7AirborneConfig(device_index=1)


def test_nested_blocks_and_paths_are_read_from_plain_values() -> None:
    block = {"thermal": {"source": "replay", "trace": "hot.jsonl"}, "lightglue_engine": "lightglue.engine"}
    assert read_c7_inference(Config(components={"c7_inference": block})) == C7AirborneConfig(
        thermal=ThermalSection(source="replay", trace=Path("hot.jsonl")), lightglue_engine=Path("lightglue.engine")
    )


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"runtime": "trt"}, ".runtime: expected tensorrt, onnx_trt_ep, pytorch_fp16, found 'trt'"),
        ({"runtime": 5}, ".runtime: expected tensorrt, onnx_trt_ep, pytorch_fp16, found 5"),
        (C7InferenceConfig(runtime=5), ".runtime: expected tensorrt, onnx_trt_ep, pytorch_fp16, found 5"),  # type: ignore[arg-type]
        ({"provider": "dml"}, ".provider: expected tensorrt, cuda, cpu, found 'dml'"),
        ({"run_limit_ms": "5"}, ".run_limit_ms: expected float, found '5'"),
        ({"run_limit_ms": 0}, ".run_limit_ms: expected float > 0.0, found 0"),
        ({"run_limit_ms": float("nan")}, ".run_limit_ms: expected float > 0.0, found nan"),
        ({"runs_at_once": True}, ".runs_at_once: expected int, found True"),
        ({"lightglue_engine": 5}, ".lightglue_engine: expected a path, found 5"),
        ({"lightglue_engine": ""}, ".lightglue_engine: expected a path, found ''"),
        ({"priorities": {"lightglue": -1}}, ".priorities['lightglue']: expected int >= 0, found -1"),
        ({"priorities": 3}, ".priorities: expected object, found 3"),
        ({"thermal": {"period_s": "1"}}, ".thermal.period_s: expected float, found '1'"),
        ({"thermal": {"source": "nvml"}}, ".thermal.source: expected auto, sysfs, replay, found 'nvml'"),
        ({"thermal": {"sauce": "auto"}}, ".thermal: unknown key 'sauce'; expected source, trace, period_s"),
        (
            {"tensorrt": {"cuda_graphs": {"lightglue": [{"keypoints0": [1, "a"]}]}}},
            ".tensorrt.cuda_graphs['lightglue'][0][...][1]: expected int, found [{'keypoints0': [1, 'a']}]",
        ),
        ({"runtme": "tensorrt"}, f": unknown key 'runtme'; expected {C7_KEYS}"),
        (None, f": expected a mapping, or an object with the fields {C7_KEYS}; found None (NoneType)"),
        ("tensorrt", f": expected a mapping, or an object with the fields {C7_KEYS}; found 'tensorrt' (str)"),
    ],
)
def test_what_is_wrong_in_the_block_is_named(block: object, text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read_c7_inference(Config(components={"c7_inference": block}))
    assert str(refusal.value) == f"config.components['c7_inference']{text}"


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({}, ".strategy: missing; expected a text of 1 to 128 characters"),
        ({"strategy": 3}, ".strategy: expected str, found 3"),
        ({"strategy": ""}, ".strategy: expected str of length >= 1, found ''"),
        ({"strategy": "any", "options": {"a": []}}, ".options['a']: expected bool | int | float | str, found []"),
        ({"strategy": "any", "option": {}}, ": unknown key 'option'; expected strategy, options"),
    ],
)
def test_what_is_wrong_in_a_components_block_is_named(block: object, text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read_component(Config(components={"c2_vpr": block}), "c2_vpr")
    assert str(refusal.value) == f"config.components['c2_vpr']{text}"


def test_a_mode_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError) as refusal:
        read_mode(BinarysOwnConfig(mode="hover"))
    assert str(refusal.value) == "config.mode: expected airborne or replay, found 'hover'"


@pytest.fixture
def nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("nothing is put under supervision that is refused before it is built")

    monkeypatch.setattr(airborne_bootstrap, "supervise", refuse)


@pytest.mark.usefixtures("nothing_is_started")
def test_a_misspelt_component_is_refused_before_anything_is_built() -> None:
    config = Config(components={"c3_matchr": {"strategy": "any"}})
    text = (
        r"^config\.components\['c3_matchr'\]: unknown component; expected c7_inference, c1_vio, c2_vpr, c2_5_rerank,"
        r" c3_matcher, c3_5_adhop, c4_pose, or one that register_strategy\(\) was told of before$"
    )
    with pytest.raises(ConfigError, match=text):
        build_pre_constructed(config)
    with pytest.raises(ConfigError, match=text):
        compose_root(config, {})


@pytest.mark.usefixtures("nothing_is_started")
def test_a_provider_without_its_runtime_is_refused_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"^config\.components\['c7_inference'\]\.provider: expected none with"):
        build_pre_constructed(Config(components={"c7_inference": {"provider": "cuda"}}))
