"""Whether an engine of the store can be used again, decided from facts alone, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from messages.lifecycle import Sha256
from messages.tensor import Name
from runtimes.host import host_differences
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry, HostTuple
from runtimes.measurements import PowerMode


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the flight plan asks for one model. `source` is absolute.

    The hashes of the calibration dataset and the samples are None where the plan names none. `power` is the board's
    present mode, None on a machine that has none; with `any_power_mode` the plan allows another than the engine's.
    `optimization_level` is that of a TensorRT build, None of any other.
    """

    model: Name
    source: Path
    source_sha256: Sha256
    build_config: BuildConfig
    dataset_sha256: Sha256 | None = None
    samples_sha256: Sha256 | None = None
    accuracy_tolerance: float | None = None
    power: PowerMode | None = None
    any_power_mode: bool = False
    optimization_level: int | None = None


class Candidate(msgspec.Struct, frozen=True):
    """An engine that lies in the store. `origin` says why it may be used: `unchanged since generation 3`."""

    entry: EngineCacheEntry
    origin: str


class Reuse(msgspec.Struct, frozen=True):
    entry: EngineCacheEntry
    reason: str


class Compile(msgspec.Struct, frozen=True):
    reason: str


Decision = Reuse | Compile


def decide(
    request: EngineRequest,
    candidates: Sequence[Candidate],
    host: HostTuple,
    runtime_label: str,
    damage: str = "",
) -> Decision:
    """Reuse the first candidate of which nothing differs; compile where there is none, and say what differs.

    `damage` is why an engine that should be a candidate is none.
    """
    unusable = [f"engine not usable: {damage}"] if damage else []
    for candidate in candidates:
        if not differences(request, candidate.entry, host, runtime_label):
            return Reuse(candidate.entry, "; ".join([candidate.origin, *unusable]))
    if candidates and not damage:
        return Compile("; ".join(differences(request, candidates[0].entry, host, runtime_label)))
    return Compile(unusable[0] if damage else "no engine yet")


def differences(request: EngineRequest, engine: EngineCacheEntry, host: HostTuple, runtime_label: str) -> list[str]:
    """What keeps this engine from being the one that is asked for, one line each; empty where it is that one."""
    found = [f"host: {difference}" for difference in host_differences(engine.host, host)]
    if engine.runtime_label != runtime_label:
        found.append(f"runtime: engine {engine.runtime_label}, configured {runtime_label}")
    if engine.source_sha256 != request.source_sha256:
        found.append(
            f"source changed: engine from sha256 {engine.source_sha256[:12]}, now {request.source_sha256[:12]}"
        )
    found += _of_build_config(engine.build_config, request.build_config)
    level = None if engine.build is None else engine.build.optimization_level
    if level != request.optimization_level:
        found.append(f"optimization_level: engine {level}, plan {request.optimization_level}")
    if engine.dataset_sha256 != request.dataset_sha256:
        found.append(f"calibration data: engine {_sha(engine.dataset_sha256)}, now {_sha(request.dataset_sha256)}")
    return found + _of_sign_off(request, engine)


def power_difference(request: EngineRequest, engine: EngineCacheEntry) -> str:
    """Both power modes where they differ and the plan does not allow it; empty otherwise."""
    if request.any_power_mode or engine.power == request.power:
        return ""
    return f"power mode: engine {_mode(engine.power)}, board {_mode(request.power)}"


def _of_build_config(built: BuildConfig, wanted: BuildConfig) -> list[str]:
    # Where the calibration data lies does not matter: its content has a hash of its own.
    return [
        f"{field}: engine {_shown(getattr(built, field))}, plan {_shown(getattr(wanted, field))}"
        for field in BuildConfig.__struct_fields__
        if field != "calibration_dataset" and getattr(built, field) != getattr(wanted, field)
    ]


def _of_sign_off(request: EngineRequest, engine: EngineCacheEntry) -> list[str]:
    found = [
        f"not signed off: the engine has no {record}"
        for record, value in (("memory record", engine.memory), ("known answers", engine.self_test_sha256))
        if value is None
    ]
    accuracy = engine.accuracy
    # Where no reference could be computed, samples decide nothing about an engine.
    if accuracy is not None and accuracy.samples_sha256 != request.samples_sha256:
        found.append(f"samples: engine {_sha(accuracy.samples_sha256)}, now {_sha(request.samples_sha256)}")
    tolerance = request.accuracy_tolerance
    if tolerance is not None and (accuracy is None or not accuracy.worst <= tolerance):
        error = "not measured" if accuracy is None else f"error {accuracy.worst:.3g}"
        found.append(f"accuracy: engine {error}, plan tolerates {tolerance:.3g}")
    difference = power_difference(request, engine)
    return [*found, difference] if difference else found


def _sha(sha256: Sha256 | None) -> str:
    return "none" if sha256 is None else f"sha256 {sha256[:12]}"


def _mode(power: PowerMode | None) -> str:
    if power is None:
        return "none"
    return f"{power.name} (CPU {power.cpu_max_mhz} MHz, GPU {power.gpu_max_mhz} MHz)"


def _shown(value: object) -> str:
    """Profiles as `image 1x3x224x224 .. 4x3x224x224`, everything else as it is."""
    if not isinstance(value, tuple):
        return str(value)
    shown = [f"{name} {' / '.join('x'.join(map(str, shape)) for shape in shapes)}" for name, *shapes in value]
    return ", ".join(shown) or "none"
