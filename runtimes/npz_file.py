"""Tensors in `.npz` files: read without pickle and within bounds, written whole or not at all."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from messages import ConfigError
from messages.tensor import TENSORS_MAX
from runtimes.store.regular_file import read_regular_file
from runtimes.store.sha256_sidecar import write_atomically

NPZ_MAX_BYTES = 4 * 1024**3
"""Largest file, and largest sum of what is in it."""


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays by name. Raises ConfigError naming the file, and the array where one is at fault."""
    try:
        data = read_regular_file(path, max_bytes=NPZ_MAX_BYTES, follow_links=True)
    except OSError as error:
        raise ConfigError(f"{path}: the inputs cannot be read: {error.strerror}") from error
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            sizes = [member.file_size for member in archive.infolist()]
    except (zipfile.BadZipFile, ValueError) as error:
        raise ConfigError(
            f"{path}: expected an .npz file as numpy.savez writes it, found another kind or one cut off ({error})"
        ) from error
    if len(sizes) > TENSORS_MAX or sum(sizes) > NPZ_MAX_BYTES:
        raise ConfigError(
            f"{path}: expected at most {TENSORS_MAX} arrays of {NPZ_MAX_BYTES} bytes together, found {len(sizes)} of"
            f" {sum(sizes)}"
        )
    arrays = {}
    with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
        for name in loaded.files:
            arrays[name] = _read_array(path, loaded, name)
    return arrays


def _read_array(path: Path, loaded: Mapping[str, object], name: str) -> np.ndarray:
    try:
        array = loaded[name]
    # What NumPy and zipfile raise for a damaged, encrypted or oddly packed member, and for an array of objects.
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, RuntimeError, MemoryError) as error:
        raise ConfigError(f"{path}: array {name} cannot be read: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ConfigError(f"{path}: {name} is no array; expected an .npz file as numpy.savez writes it")
    return array


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write all arrays, or leave the file as it was. Any name is legal, which `numpy.savez` does not promise.

    Raises OSError.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())
