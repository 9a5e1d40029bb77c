"""What provisioning measured of one engine, kept in the engine's metadata."""

from __future__ import annotations

from typing import Annotated

import msgspec

from messages.lifecycle import Sha256
from messages.tensor import Name

INT_MAX = 2**63 - 1
Bytes = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]


class PowerMode(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A Jetson's power mode and the clocks it allows, which the timings of an engine depend on.

    `name` is nvpmodel's (`MAXN_SUPER`, `15W`), or `mode 2` where its catalogue does not say. A clock is 0 where it
    cannot be read.
    """

    name: Annotated[str, msgspec.Meta(max_length=64)]
    cpu_max_mhz: Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
    gpu_max_mhz: Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]


class MemoryUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much memory one engine took when it was provisioned, in bytes.

    `load_bytes` is what stayed after loading, `run_bytes` what its self-test and first runs added (activations,
    workspaces).
    Memory of a discrete GPU is `device_load_bytes` and `device_run_bytes`; a Jetson's is the machine's own.
    """

    load_bytes: Bytes
    run_bytes: Bytes
    device_load_bytes: Bytes = 0
    device_run_bytes: Bytes = 0


class OutputError(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far one output is from the reference.

    `relative_rms` is |engine - reference| / |reference| in the Euclidean norm over all samples; of an output of
    integers or booleans it is the share of elements that differ. `max_abs` is the largest difference of an element.
    """

    relative_rms: Annotated[float, msgspec.Meta(ge=0)]
    max_abs: Annotated[float, msgspec.Meta(ge=0)]


class AccuracyRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The engine against the fp32 reference of its source.

    `samples_sha256` is the content hash of the samples that were given, None where inputs were generated.
    """

    reference: Annotated[str, msgspec.Meta(max_length=200)]
    samples_sha256: Sha256 | None
    sample_count: Annotated[int, msgspec.Meta(ge=1, le=INT_MAX)]
    outputs: dict[Name, OutputError]

    @property
    def worst(self) -> float:
        """The largest relative error of any output: what a tolerance is held against."""
        return max((output.relative_rms for output in self.outputs.values()), default=0.0)
