"""What TensorRT was asked for when it built an engine, and what it made of that; kept in the engine's metadata."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from runtimes.measurements import INT_MAX, Bytes

BuilderName = Literal["polygraphy", "trtexec", "api"]
"""Which tool carries the recipe of an engine out. The engine is the same, whichever it is."""

WARNINGS_MAX = 32
LINE_MAX_CHARS = 300
COMMAND_MAX = 64
COMMAND_MAX_CHARS = 64 * 1024
"""All arguments together: metadata is read up to 256 KiB."""
_Count = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
_Word = Annotated[str, msgspec.Meta(max_length=64)]


class BuildReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One build.

    `tensorrt` is the library's full version, `optimization_level` how much it tried. `flags` are the builder flags that
    were set, by name and sorted; TF32 is off where it is not among them. `command` is trtexec's command line, empty
    where it was not used.
    `layer_precisions` counts the engine's layers by the type that they compute in, as the inspector tells it.
    `skipped_tactics` were left out for lack of workspace; `missing_scales` are tensors that calibration gave none.
    `warnings` are the first distinct ones in TensorRT's words. `activation_bytes` is the device memory of one context,
    by profile.
    """

    builder: BuilderName
    tensorrt: _Word
    strongly_typed: bool
    optimization_level: Annotated[int, msgspec.Meta(ge=0, le=5)]
    flags: Annotated[tuple[_Word, ...], msgspec.Meta(max_length=32)]
    command: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=COMMAND_MAX_CHARS)], ...], msgspec.Meta(max_length=COMMAND_MAX)
    ] = ()
    layer_precisions: Annotated[dict[_Word, _Count], msgspec.Meta(max_length=32)] = {}
    skipped_tactics: _Count = 0
    missing_scales: _Count = 0
    warnings: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=LINE_MAX_CHARS)], ...], msgspec.Meta(max_length=WARNINGS_MAX)
    ] = ()
    activation_bytes: Annotated[tuple[Bytes, ...], msgspec.Meta(max_length=16)] = ()
