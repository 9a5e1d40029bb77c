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
_NAMES_MAX = 100_000
"""Counted. A network of ten thousand layers has some thirty thousand tensors."""
_SHOWN = 3
_SKIPPED = re.compile(r"Skipping tactic .*?due to insuff?icient memory on requested size of (\d+)", re.IGNORECASE)
_REQUEST = re.compile(r"Tactic Device request: (\d+)\s*MB Available: (\d+)\s*MB")
_UNSCALED = re.compile(r"Missing scale and zero-point for tensor (.+?), expect fall back", re.DOTALL)
_WARNING = "WARNING"


class BuildFindings(msgspec.Struct, frozen=True, kw_only=True):
    """`skipped_tactics` counts tactics left out for memory, and `short_of_memory` is the line of the first one that the
    workspace would have allowed. `missing_scales` counts the tensors without a scale, and `unscaled` are those that
    calibration could have given one, each once. `warnings` are the first distinct ones.
    """

    skipped_tactics: int = 0
    short_of_memory: str = ""
    missing_scales: int = 0
    unscaled: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class FindingsReader:
    """Reads the log of one build line by line, however long it is, and keeps what counts. For one thread at a time."""

    def __init__(self, workspace_bytes: int, activations: Collection[str] | None = None) -> None:
        """`activations` are the tensors of the model that calibration can give a scale, None for all: TensorRT warns of
        each constant and each integer too (NVIDIA/TensorRT#4058), which says nothing of the calibration.
        """
        self._workspace_bytes = workspace_bytes
        self._activations = activations
        self._skipped = 0
        self._short = ""
        self._missing: set[str] = set()
        self._unscaled: dict[str, None] = {}
        self._warnings: dict[str, None] = {}

    def take(self, line: LogLine) -> None:
        skip, request, tensor = (kind.search(line.text) for kind in (_SKIPPED, _REQUEST, _UNSCALED))
        self._skipped += skip is not None
        if not self._short and (
            (skip is not None and _size_bytes(int(skip[1])) <= self._workspace_bytes)
            or (request is not None and int(request[2]) < int(request[1]) <= self._workspace_bytes // _MIB)
        ):
            self._short = _shown(line.text)
        if tensor is not None:
            self._take_unscaled(tensor[1])
        if line.severity == _WARNING and len(self._warnings) < WARNINGS_MAX:
            self._warnings[_shown(line.text)] = None

    def findings(self) -> BuildFindings:
        return BuildFindings(
            skipped_tactics=self._skipped,
            short_of_memory=self._short,
            missing_scales=len(self._missing),
            unscaled=tuple(self._unscaled),
            warnings=tuple(self._warnings),
        )

    def _take_unscaled(self, name: str) -> None:
        """Those that weaken an engine have room whatever the number of the others: a model has only so many."""
        if len(self._missing) < _NAMES_MAX:
            self._missing.add(name)
        if name in self._activations if self._activations is not None else len(self._unscaled) < _NAMES_MAX:
            self._unscaled[name] = None


def find_in_log(
    lines: Iterable[LogLine], workspace_bytes: int, activations: Collection[str] | None = None
) -> BuildFindings:
    """Pure. `activations` as `FindingsReader` has them."""
    reader = FindingsReader(workspace_bytes, activations)
    for line in lines:
        reader.take(line)
    return reader.findings()


def why_weakened(findings: BuildFindings, recipe: EngineRecipe) -> str:
    """Pure. What makes this engine weaker than its recipe, and what to do; "" where nothing does."""
    if findings.short_of_memory:
        return (
            f"the device was short of memory during the build, and TensorRT left out what the workspace of"
            f" {recipe.workspace_bytes // _MIB} MiB allows: {findings.short_of_memory}; end what else uses the device,"
            " or lower workspace_mb, and compile again"
        )
    unscaled = findings.unscaled
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
