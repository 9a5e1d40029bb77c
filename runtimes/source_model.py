"""The model that a person supplies: read once, hashed, and compiled from that same buffer."""

from __future__ import annotations

from pathlib import Path

import msgspec

from messages.errors import EngineBuildError
from messages.lifecycle import Sha256
from runtimes.store.regular_file import read_regular_file
from runtimes.store.sha256_sidecar import sha256_of

SOURCE_MAX_BYTES = 4 * 1024**3
_COMPILED_BY = {".onnx": "tensorrt and onnx_trt_ep compile it", ".pt2": "pytorch_fp16 compiles it"}


class SourceModel(msgspec.Struct, frozen=True, eq=False):
    """`data` is the whole file, and `sha256` is its hash."""

    path: Path
    data: bytes
    sha256: Sha256


def read_source(path: Path, *, suffix: str) -> SourceModel:
    """Read a source model. `suffix` is the kind that the runtime compiles: `.onnx` or `.pt2`.

    Raises EngineBuildError for a missing, empty or unreadable file, or one of another kind.
    """
    if path.suffix != suffix:
        whose = _COMPILED_BY.get(path.suffix)
        remedy = f"; {path.suffix} is a source of another runtime: {whose}" if whose else ""
        raise EngineBuildError(f"{path}: this runtime compiles {suffix} files, got '{path.suffix}'{remedy}")
    try:
        data = read_regular_file(path, max_bytes=SOURCE_MAX_BYTES, follow_links=True)
    except OSError as error:
        raise EngineBuildError(f"{path}: the source model cannot be read: {error.strerror}") from error
    if not data:
        raise EngineBuildError(f"{path}: the source model is empty (0 bytes); export it again")
    return SourceModel(path, data, sha256_of(data))
