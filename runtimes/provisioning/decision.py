"""Whether an engine of the store can be used again, decided from facts alone, with the reason."""

from __future__ import annotations

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
    present mode, None where there is none or where the plan allows another one.
    """

    model: Name
    source: Path
    source_sha256: Sha256
    build_config: BuildConfig
    dataset_sha256: Sha256 | None = None
    samples_sha256: Sha256 | None = None
    accuracy_tolerance: float | None = None
    power: PowerMode | None = None


class Reuse(msgspec.Struct, frozen=True):
    entry: EngineCacheEntry
    reason: str


class Compile(msgspec.Struct, frozen=True):
    reason: str


Decision = Reuse | Compile


def decide(
    request: EngineRequest,
    existing: EngineCacheEntry | None,
    host: HostTuple,
    runtime_label: str,
    damage: str = "",
) -> Decision:
    """Reuse `existing` only where nothing that went into it differs.

    `existing` is None where the store has no such engine; `damage` is why it has none that can be used.
    """
    if existing is None:
        return Compile(f"engine not usable: {damage}" if damage else "no engine yet")
    built, wanted = existing.build_config, request.build_config
    differences = [f"host: {difference}" for difference in host_differences(existing.host, host)]
    if existing.runtime_label != runtime_label:
        differences.append(f"runtime: engine {existing.runtime_label}, configured {runtime_label}")
    if existing.source_sha256 != request.source_sha256:
        differences.append(
            f"source changed: engine from sha256 {existing.source_sha256[:12]}, now {request.source_sha256[:12]}"
        )
    differences += [
        f"{field}: engine {_shown(getattr(built, field))}, plan {_shown(getattr(wanted, field))}"
        for field in BuildConfig.__struct_fields__
        if getattr(built, field) != getattr(wanted, field)
    ]
    if differences:
        return Compile("; ".join(differences))
    return Reuse(existing, "unchanged")


def _shown(value: object) -> str:
    """Profiles as `image 1x3x224x224 .. 4x3x224x224`, everything else as it is."""
    if not isinstance(value, tuple):
        return str(value)
    shown = [f"{name} {' / '.join('x'.join(map(str, shape)) for shape in shapes)}" for name, *shapes in value]
    return ", ".join(shown) or "none"
