"""The first bytes of a serialised engine: what it is, and which TensorRT wrote it. Pure.

Bytes 0 to 3 are `ftrt`, bytes 4 to 7 a little-endian 0, and bytes 24 to 27 TensorRT's major, minor, patch and build
(samples/common/sampleEngines.cpp, printPlanVersion, tags v10.3.0 to v11.1). No
further field is public.
"""

from __future__ import annotations

import struct

from messages import EngineDeserializeError
from runtimes.tensorrt.library import version_numbers

PLAN_MAGIC = b"ftrt"
HEADER_BYTES = 28
_FORMAT = struct.Struct("<4sI16x4B")


def read_plan_version(subject: str, plan: bytes) -> tuple[int, int, int, int]:
    """Which TensorRT wrote a plan. Raises EngineDeserializeError naming `subject` where it is none."""
    if len(plan) < HEADER_BYTES:
        raise EngineDeserializeError(
            f"{subject}: expected a TensorRT engine, found {len(plan)} bytes, fewer than its header of {HEADER_BYTES};"
            " compile it again"
        )
    magic, layout, *version = _FORMAT.unpack_from(plan)
    if magic != PLAN_MAGIC or layout != 0:
        raise EngineDeserializeError(
            f"{subject}: expected a TensorRT engine, which opens with {PLAN_MAGIC!r} and layout 0, found {magic!r} and"
            f" layout {layout}; compile it again"
        )
    major, minor, patch, build = version
    return major, minor, patch, build


def check_plan_version(subject: str, plan: bytes, version: str) -> None:
    """Raises EngineDeserializeError where another TensorRT than `version` wrote the plan.

    As many numbers are compared as `version` has: 10.3's bindings do not tell the build.
    """
    written = read_plan_version(subject, plan)
    here = version_numbers(version)[: len(written)]
    if written[: len(here)] != here:
        raise EngineDeserializeError(
            f"{subject}: expected an engine of TensorRT {version}, found one of"
            f" {'.'.join(map(str, written))}; engines never cross versions: compile it on this machine"
        )
