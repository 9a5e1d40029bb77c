"""Paths in msgspec records: text on disk, `pathlib.Path` in memory."""

from __future__ import annotations

from pathlib import Path


def encode_path(value: object) -> object:
    """`enc_hook` of msgspec."""
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"a {type(value).__name__} has no text form")


def decode_path(kind: type, value: object) -> object:
    """`dec_hook` of msgspec. Raises ValueError, which msgspec reports with the place."""
    if kind is not Path:
        raise NotImplementedError(f"a {kind.__name__} has no text form")
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"Expected a path, got {value!r:.80}")
    return Path(value)
