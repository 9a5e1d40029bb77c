"""The demo's flight plan: the same `flight.toml` that a person writes, and the heat that its board will feel."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from actors.demo.frames import FolderFrames
from actors.demo.networks import SIZES, DemoRuntime, NetworkSizes
from actors.demo.toml_text import toml_text
from actors.perception.features import KEYPOINTS_MIN
from messages import ConfigError
from runtimes.config import C7InferenceConfig, Provider
from runtimes.flight_plan import (
    ConsumerSection,
    FlightPlan,
    FlightSection,
    FramesSection,
    ModelSection,
    Options,
    ProfileSection,
    ThermalSection,
)
from runtimes.inference_runtime import Precision

RATE_HZ = 3.0
PLACE_RECOGNITION, RERANKER, MATCHER, REFINER = "c2_vpr", "c2_5_rerank", "c3_matcher", "c3_5_adhop"
POSE = "c4_pose"
"""The consumers' names in the plan, and so in every recording. C4 asks no engine, only how hot the board is."""

THROTTLED_FROM, THROTTLED_UNTIL, FAULT_AT = 0.15, 0.35, 0.5
"""Shares of the flight."""
SAMPLED_S, LEAVING_S = 1.2, 4.5
"""At one sample a second a throttle is seen for sure, and three clear samples later it has left."""

HEADER = """\
# The flight plan of the demonstration, as a person would write it. Try it by hand:
#   c7 provision {name}
#   c7 preflight {name}
#   c7 fly {name} --for 10
"""

TRACE_STEP_S = 0.5
COLD_C, HOT_C, COOLED_C = 58.0, 100.5, 84.0
FULL_CLOCK_MHZ, THROTTLED_CLOCK_MHZ = 1020, 612
"""Of the GPU of an Orin Nano. Its passive trip is at 99 degrees."""
COOLING_DEVICE = "gpu-throttle-alert"


def write_flight_plan(
    directory: Path,
    *,
    runtime: DemoRuntime,
    models: Mapping[str, Path],
    flight_s: float,
    frames_directory: Path | None = None,
    rate_hz: float = RATE_HZ,
    provider: Provider = "cpu",
) -> Path:
    """Write `flight.toml` for the models of `write_models`, with its thermal trace, and return its path.

    `provider` is what `onnx_trt_ep` runs on. What lies in `directory` is named relative to it, so that the folder can
    be moved.
    Within `flight_s` of a life's takeoff a throttle enters and leaves, and, where `plans_a_crash`, the refinement
    crashes its engine once.
    Store, state and recordings are folders beside the plan. Raises ConfigError where a file cannot be written, a path
    has no form in UTF-8, or `frames_directory` has no pictures or one that cannot be read.
    """
    sizes = SIZES[runtime]
    precision = _precision(runtime, provider)
    deadline_ms = round(1000.0 / rate_hz, 1)  # one frame period: a later result belongs to an older frame
    pictures: Options = {}
    if frames_directory is not None:
        FolderFrames(str(frames_directory)).check()
        pictures = {"folder": str(frames_directory.absolute())}
    trace = directory / "thermal.jsonl"
    write_thermal_trace(
        trace,
        throttled_from_s=THROTTLED_FROM * flight_s,
        throttled_until_s=max(
            THROTTLED_FROM * flight_s + SAMPLED_S, min(THROTTLED_UNTIL * flight_s, flight_s - LEAVING_S)
        ),
    )
    plan = FlightPlan(
        flight=FlightSection(name="demo", lightglue="matcher"),
        runtime=C7InferenceConfig(runtime=runtime, provider=provider if runtime == "onnx_trt_ep" else None),
        thermal=ThermalSection(source="replay", trace=Path(trace.name)),
        models=_models(sizes, _as_in_plan(models, directory), deadline_ms, precision),
        frames=FramesSection(
            source=f"actors.demo.frames:{'FolderFrames' if pictures else 'MovingWindow'}",
            rate_hz=rate_hz,
            options=pictures,
        ),
        consumers=_consumers(
            sizes, deadline_ms, pictures, round(FAULT_AT * flight_s * rate_hz) if plans_a_crash(runtime) else -1
        ),
    )
    path = directory / "flight.toml"
    _write(path, HEADER.format(name=path.name) + "\n" + toml_text(plan))
    return path


def plans_a_crash(runtime: DemoRuntime) -> bool:
    """Of TensorRT no input is known that passes every check, fails its run, and leaves the device as it was."""
    return runtime != "tensorrt"


def write_thermal_trace(path: Path, *, throttled_from_s: float, throttled_until_s: float) -> None:
    """Write a trace for the replay source: warming up, throttled between the two times, then cooling for good.

    Times are seconds after a life's first sample. Raises ConfigError where they are not in order, or the file cannot
    be written.
    """
    if not 0.0 < throttled_from_s < throttled_until_s < 1e5:
        raise ConfigError(
            "thermal trace: expected 0 < throttled_from_s < throttled_until_s,"
            f" found {throttled_from_s:g} and {throttled_until_s:g}"
        )
    steps = math.ceil((throttled_until_s + 10.0) / TRACE_STEP_S)
    lines = (_reading(step * TRACE_STEP_S, throttled_from_s, throttled_until_s) for step in range(steps + 1))
    _write(path, "".join(json.dumps(line) + "\n" for line in lines))


def _precision(runtime: DemoRuntime, provider: Provider) -> Precision:
    """Float32 models stay as they are on a CPU; a GPU runs them in mixed precision."""
    if SIZES[runtime].dtype == "float16":
        return "fp16"
    return "fp32" if runtime == "onnx_trt_ep" and provider == "cpu" else "mixed"


def _as_in_plan(models: Mapping[str, Path], directory: Path) -> dict[str, Path]:
    """Relative where they lie in the plan's folder, absolute elsewhere."""
    folder = directory.absolute()
    paths = {name: path.absolute() for name, path in models.items()}
    return {name: path.relative_to(folder) if path.is_relative_to(folder) else path for name, path in paths.items()}


def _models(
    sizes: NetworkSizes, models: Mapping[str, Path], deadline_ms: float, precision: Precision
) -> dict[str, ModelSection]:
    """In the order of urgency: where the aircraft is at all comes first."""
    uses: dict[str, tuple[int, float, tuple[str, ...]]] = {
        "backbone": (10, 1, (PLACE_RECOGNITION,)),
        "extractor": (20, 2, (RERANKER, MATCHER)),
        "matcher": (30, 13, (RERANKER, MATCHER)),
        "refiner": (40, 0.2, (REFINER,)),
    }
    return {
        name: ModelSection(
            source=models[name],
            precision=precision,
            priority=priority,
            deadline_ms=deadline_ms,
            calls_per_frame=calls_per_frame,
            consumers=consumers,
            profiles=_matcher_profiles(sizes) if name == "matcher" else {},
        )
        for name, (priority, calls_per_frame, consumers) in uses.items()
    }


def _matcher_profiles(sizes: NetworkSizes) -> dict[str, ProfileSection]:
    counts = (KEYPOINTS_MIN, sizes.rerank_keypoints, sizes.match_keypoints)
    widths = {"keypoints": 2, "descriptors": sizes.extractor.descriptor}
    profiles = {}
    for side in (0, 1):
        for name, width in widths.items():
            low, usual, high = ((1, count, width) for count in counts)
            profiles[f"{name}{side}"] = ProfileSection(min=low, opt=usual, max=high)
    return profiles


def _consumers(
    sizes: NetworkSizes, within_ms: float, pictures: Options, fault_at_frame: int
) -> dict[str, ConsumerSection]:
    """This project's own components; C3.5 is the demonstration's, for the crash."""
    return {
        PLACE_RECOGNITION: ConsumerSection(
            strategy="place_recognition", engines={"engine": "backbone"}, within_ms=within_ms
        ),
        RERANKER: ConsumerSection(
            strategy="reranker",
            engines={"extractor": "extractor"},
            within_ms=within_ms,
            options={
                "keypoints": sizes.rerank_keypoints,
                "tile_source": "actors.demo.frames:MapTiles",
                **{f"tile_{name}": value for name, value in pictures.items()},
            },
        ),
        MATCHER: ConsumerSection(
            strategy="matcher",
            engines={"extractor": "extractor"},
            within_ms=within_ms,
            options={"keypoints": sizes.match_keypoints},
        ),
        REFINER: ConsumerSection(
            factory="actors.demo.planned_fault:FaultyRefiner",
            engines={"engine": "refiner"},
            within_ms=within_ms,
            options={"viewpoints": sizes.refiner.viewpoints, "fault_at_frame": fault_at_frame},
        ),
        POSE: ConsumerSection(strategy="pose"),
    }


def _reading(at_s: float, hot_from_s: float, hot_until_s: float) -> dict[str, object]:
    throttled = hot_from_s <= at_s < hot_until_s
    if at_s < hot_from_s:
        gpu_temp_c = COLD_C + (HOT_C - COLD_C) * at_s / hot_from_s
    elif throttled:
        gpu_temp_c = HOT_C
    else:
        # Well below the trip at once: a throttle is over only where the board has cooled by two degrees.
        gpu_temp_c = COOLED_C + (HOT_C - 5.0 - COOLED_C) * math.exp(-(at_s - hot_until_s) / 4.0)
    return {
        "at_s": at_s,
        "cpu_temp_c": round(gpu_temp_c - 3.0, 1),
        "gpu_temp_c": round(gpu_temp_c, 1),
        "gpu_clock_mhz": THROTTLED_CLOCK_MHZ if throttled else FULL_CLOCK_MHZ,
        "throttled_by": [COOLING_DEVICE] if throttled else [],
    }


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"expected a folder to write {path.name} to, found {path.parent}: {error.strerror}"
        ) from error
