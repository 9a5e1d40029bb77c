"""What TensorRT's log says of a build: what it left out, and whether the engine is weaker for it.

The words are TensorRT 10's, from public logs of builds on an Orin (ultralytics/ultralytics#22271) and of calibrations
(NVIDIA/TensorRT#4058); TensorRT 8 wrote "insuficient", and MB for the requested size:

    UNSUPPORTED_STATE: Skipping tactic 9 due to insufficient memory on requested size of 1048576000 detected for tactic
    Tactic Device request: 1000MB Available: 302MB. Device memory is insufficient to use tactic.
    Missing scale and zero-point for tensor T, expect fall back to non-int8 implementation for any layer consuming or

Two things weaken an engine, and neither is an error to TensorRT:

- A tactic that needs more than the plan's workspace was never to be used: it is counted. One that the workspace allows
  was left out because the device was short of memory just then, and the same build makes another engine tomorrow.
- A tensor without a scale sends its layers to another precision. `mixed` allows that and counts it, `int8` does not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import msgspec

from messages.errors import printable
from runtimes.build_report import LINE_MAX_CHARS, WARNINGS_MAX
from runtimes.tensorrt.building.recipe import EngineRecipe
from runtimes.tensorrt.faults import LogLine

_MIB = 1024**2
_NAMES_MAX = 1000
_SHOWN = 3
_SKIPPED = re.compile(r"Skipping tactic .*?due to insuff?icient memory on requested size of (\d+)", re.IGNORECASE)
_REQUEST = re.compile(r"Tactic Device request: (\d+)\s*MB Available: (\d+)\s*MB")
_UNSCALED = re.compile(r"Missing scale and zero-point for tensor (.+?), expect fall back", re.DOTALL)
_WARNING = "WARNING"


class BuildFindings(msgspec.Struct, frozen=True, kw_only=True):
    """`skipped_tactics` counts tactics left out for memory, and `short_of_memory` is the line of the first one that the
    workspace would have allowed. `unscaled` are the tensors without a scale, each once. `warnings` are the first
    distinct ones.
    """

    skipped_tactics: int = 0
    short_of_memory: str = ""
    unscaled: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def find_in_log(lines: Iterable[LogLine], workspace_bytes: int) -> BuildFindings:
    """Pure."""
    skipped = 0
    short = ""
    unscaled: dict[str, None] = {}
    warnings: dict[str, None] = {}
    for line in lines:
        skip, request, tensor = (kind.search(line.text) for kind in (_SKIPPED, _REQUEST, _UNSCALED))
        skipped += skip is not None
        if not short and (
            (skip is not None and _size_bytes(int(skip[1])) <= workspace_bytes)
            or (request is not None and int(request[2]) < int(request[1]) <= workspace_bytes // _MIB)
        ):
            short = _shown(line.text)
        if tensor is not None and len(unscaled) < _NAMES_MAX:
            unscaled[tensor[1]] = None
        if line.severity == _WARNING and len(warnings) < WARNINGS_MAX:
            warnings[_shown(line.text)] = None
    return BuildFindings(
        skipped_tactics=skipped, short_of_memory=short, unscaled=tuple(unscaled), warnings=tuple(warnings)
    )


def why_weakened(findings: BuildFindings, recipe: EngineRecipe, activations: Collection[str] | None = None) -> str:
    """Pure. What makes this engine weaker than its recipe, and what to do; "" where nothing does.

    `activations` are the tensors of the model that calibration can give a scale, None for all: TensorRT warns of each
    constant and each integer too (NVIDIA/TensorRT#4058), which says nothing of the calibration.
    """
    if findings.short_of_memory:
        return (
            f"the device was short of memory during the build, and TensorRT left out what the workspace of"
            f" {recipe.workspace_bytes // _MIB} MiB allows: {findings.short_of_memory}; end what else uses the device,"
            " or lower workspace_mb, and compile again"
        )
    unscaled = [name for name in findings.unscaled if activations is None or name in activations]
    if unscaled and recipe.precision == "int8":
        names = ", ".join(printable(name, 80) for name in unscaled[:_SHOWN])
        more = f" and {len(unscaled) - _SHOWN} more" if len(unscaled) > _SHOWN else ""
        return (
            f"expected a scale for every tensor of an int8 engine, found none for {names}{more}, whose layers TensorRT"
            " runs in another precision; calibrate on inputs that reach them, export the model with QuantizeLinear, or"
            " give it precision mixed, which allows that"
        )
    return ""


def _size_bytes(size: int) -> int:
    """TensorRT 10 writes bytes. Less than a KiB is what TensorRT 8 wrote in MB."""
    return size * _MIB if size < 1024 else size


def _shown(text: str) -> str:
    return printable(" ".join(text.split()), LINE_MAX_CHARS // 10 * 9)[:LINE_MAX_CHARS]
