"""The plan that the demo writes is one that the flight process takes, and its heat does what it says."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from actors.consumer import load_class
from actors.demo.networks import SIZES, DemoRuntime
from actors.demo.plan import write_flight_plan, write_thermal_trace
from actors.strategy_registry import AIRBORNE_STRATEGIES
from messages import NS_PER_S, ConfigError, ThermalTransition, ThrottleEntered, ThrottleLeft, VirtualClock
from runtimes.flight_plan_file import read_flight_plan
from telemetry import ReplayThermalSource
from telemetry.throttle import ThrottleWatch, observe

MODELS = {name: Path("models") / f"{name}.onnx" for name in ("backbone", "extractor", "matcher", "refiner")}


def transitions(trace: Path, flight_s: int) -> list[tuple[int, ThermalTransition]]:
    """What a 1 Hz sampler makes of the trace: (second, transition)."""
    clock, watch, seen = VirtualClock(), ThrottleWatch(), []
    source = ReplayThermalSource(trace, clock)
    for second in range(flight_s + 1):
        watch, _, told = observe(watch, source.read(), clock.monotonic_ns())
        seen += [(second, transition) for transition in told]
        clock.advance_ns(NS_PER_S)
    return seen


@pytest.mark.parametrize("runtime", SIZES)
def test_the_flight_process_reads_the_plan_as_it_was_meant(tmp_path: Path, runtime: DemoRuntime) -> None:
    plan = read_flight_plan(write_flight_plan(tmp_path, runtime=runtime, models=MODELS, flight_s=24.0))
    assert plan.runtime.runtime == runtime
    assert list(plan.models) == ["backbone", "extractor", "matcher", "refiner"]
    assert sorted(plan.models, key=lambda name: plan.models[name].priority) == list(plan.models)
    precision = {"onnx_trt_ep": "fp32", "pytorch_fp16": "fp16", "tensorrt": "mixed"}[runtime]
    assert {section.precision for section in plan.models.values()} == {precision}
    assert (int(plan.consumers["c3_5_adhop"].options["fault_at_frame"]) >= 0) == (runtime != "tensorrt")
    assert plan.models["matcher"].calls_per_frame == 13
    assert plan.flight.store == tmp_path / "engines"
    assert plan.models["matcher"].profiles["descriptors1"].max[1] == SIZES[runtime].match_keypoints
    assert plan.frames is not None
    assert plan.frames.rate_hz == 3.0


def test_every_class_and_strategy_that_the_plan_names_exists(tmp_path: Path) -> None:
    plan = read_flight_plan(write_flight_plan(tmp_path, runtime="onnx_trt_ep", models=MODELS, flight_s=24.0))
    assert plan.frames is not None
    assert load_class(plan.frames.source, "test").__name__ == "MovingWindow"
    for component, section in plan.consumers.items():
        path = AIRBORNE_STRATEGIES[component][section.strategy] if section.strategy else section.factory
        assert path is not None
        options = inspect.signature(load_class(path, "test")).parameters
        assert {*section.options, *section.engines} <= {*options, "tile_folder"}


def test_every_engine_that_a_component_opens_is_a_model_that_says_so(tmp_path: Path) -> None:
    plan = read_flight_plan(write_flight_plan(tmp_path, runtime="onnx_trt_ep", models=MODELS, flight_s=24.0))
    for component, section in plan.consumers.items():
        for model in section.engines.values():
            assert component in plan.models[model].consumers
    assert plan.flight.lightglue == "matcher"


def test_a_frame_has_one_period_for_all_its_runs(tmp_path: Path) -> None:
    plan = read_flight_plan(
        write_flight_plan(tmp_path, runtime="onnx_trt_ep", models=MODELS, flight_s=24.0, rate_hz=4.0)
    )
    assert {section.within_ms for name, section in plan.consumers.items() if name != "c4_pose"} == {250.0}


def test_every_model_names_consumers_of_the_plan_and_every_consumer_that_asks_has_a_model(tmp_path: Path) -> None:
    plan = read_flight_plan(write_flight_plan(tmp_path, runtime="onnx_trt_ep", models=MODELS, flight_s=24.0))
    asking = {name for section in plan.models.values() for name in section.consumers}
    assert set(plan.consumers) - asking == {"c4_pose"}, "it asks no engine, only how hot the board is"
    assert asking <= set(plan.consumers)


def test_the_users_pictures_are_named_to_the_frame_source_and_to_the_map(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pictures = tmp_path / 'mine "Ä" #1'
    pictures.mkdir()
    image.new("RGB", (40, 40)).save(pictures / "a.png")
    written = write_flight_plan(
        tmp_path, runtime="onnx_trt_ep", models=MODELS, flight_s=24.0, frames_directory=pictures
    )
    plan = read_flight_plan(written)
    assert plan.frames is not None
    assert plan.frames.source == "actors.demo.frames:FolderFrames"
    assert plan.frames.options["folder"] == plan.consumers["c2_5_rerank"].options["tile_folder"] == str(pictures)


def test_a_broken_picture_is_refused_before_a_plan_is_written(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ConfigError, match=r"a\.png"):
        write_flight_plan(tmp_path, runtime="onnx_trt_ep", models=MODELS, flight_s=24.0, frames_directory=tmp_path)
    assert not (tmp_path / "flight.toml").exists()


@pytest.mark.parametrize("flight_s", [7.2, 14.4, 60.0])
def test_within_the_flight_a_throttle_enters_and_leaves_once(tmp_path: Path, flight_s: float) -> None:
    plan = read_flight_plan(write_flight_plan(tmp_path, runtime="onnx_trt_ep", models=MODELS, flight_s=flight_s))
    assert plan.thermal.trace is not None
    (entered, first), (left, second) = transitions(plan.thermal.trace, int(flight_s))
    assert isinstance(first, ThrottleEntered)
    assert isinstance(second, ThrottleLeft)
    assert 0 < entered < left <= flight_s
    assert first.state.gpu_temp_c > 99.0
    assert first.state.throttled_by == ("gpu-throttle-alert",)


@pytest.mark.parametrize("flight_s", [7.2, 14.4, 60.0])
def test_the_crash_lies_within_the_flight_while_frames_come(tmp_path: Path, flight_s: float) -> None:
    plan = read_flight_plan(write_flight_plan(tmp_path, runtime="onnx_trt_ep", models=MODELS, flight_s=flight_s))
    fault_at_frame = plan.consumers["c3_5_adhop"].options["fault_at_frame"]
    assert isinstance(fault_at_frame, int)
    assert 1 <= fault_at_frame < flight_s * 3.0 - 10


@pytest.mark.parametrize(("from_s", "until_s"), [(0.0, 5.0), (5.0, 5.0), (7.0, 5.0), (1.0, float("inf"))])
def test_a_throttle_whose_times_are_out_of_order_is_refused(tmp_path: Path, from_s: float, until_s: float) -> None:
    with pytest.raises(ConfigError, match="throttled_from_s < throttled_until_s"):
        write_thermal_trace(tmp_path / "thermal.jsonl", throttled_from_s=from_s, throttled_until_s=until_s)


def test_a_folder_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match="taken"):
        write_flight_plan(tmp_path / "taken", runtime="onnx_trt_ep", models=MODELS, flight_s=24.0)
