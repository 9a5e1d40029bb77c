"""Tensors in `.npz` files: read without pickle and within bounds, written whole or not at all."""

from __future__ import annotations

import io
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from messages import ConfigError
from messages.errors import printable
from messages.tensor import TENSORS_MAX
from runtimes.store.durable_files import write_atomically
from runtimes.store.regular_file import read_regular_file

NPZ_MAX_BYTES = 4 * 1024**3
"""Largest file, and largest sum of what is in it."""

_DAMAGED = (
    # What zipfile raises for a damaged, encrypted or oddly packed archive, and NumPy for a damaged array or one of
    # objects: a flipped bit of an array's header ends in the tokeniser as well as in `ValueError`.
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays by name. Raises ConfigError naming the file, and the array where one is at fault."""
    try:
        data = read_regular_file(path, max_bytes=NPZ_MAX_BYTES, follow_links=True)
    except OSError as error:
        raise ConfigError(f"{path}: the inputs cannot be read: {error.strerror}") from error
    return decode_npz(path, data, max_bytes=NPZ_MAX_BYTES)


def decode_npz(path: Path, data: bytes, *, max_bytes: int, arrays_max: int = TENSORS_MAX) -> dict[str, np.ndarray]:
    """The arrays in `data`, which was read from `path` and unpacks to at most `max_bytes`.

    Raises ConfigError naming the file, and the array where one is at fault.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _DAMAGED as error:
        raise ConfigError(
            f"{path}: expected an .npz file as numpy.savez writes it, found another kind or one cut off"
            f" ({printable(str(error), 300)})"
        ) from error
    with archive:
        members = archive.infolist()
        promised = _promised_members(data)
        if len(members) != promised:
            raise ConfigError(
                f"{path}: expected {promised} arrays by its own count, found {len(members)}; it is damaged"
            )
        unpacked_bytes = sum(member.file_size for member in members)
        if len(members) > arrays_max or unpacked_bytes > max_bytes:
            raise ConfigError(
                f"{path}: expected at most {arrays_max} arrays of {max_bytes} bytes together, found {len(members)} of"
                f" {unpacked_bytes}"
            )
        arrays: dict[str, np.ndarray] = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in arrays:
                raise ConfigError(
                    f"{path}: expected each array once, found {printable(name, 128)} twice; write the file again"
                )
            arrays[name] = _read_array(path, archive, member, name)
    return arrays


def _promised_members(data: bytes) -> int:
    """How many members the end of the archive says that there are.

    zipfile does not look: one flipped bit in the length of a member's comment hides the next member.
    """
    end = data.rfind(b"PK\x05\x06")
    return int.from_bytes(data[end + 10 : end + 12], "little")


def _read_array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> np.ndarray:
    magic = np.lib.format.MAGIC_PREFIX
    shown = printable(name, 128)
    try:
        with archive.open(member) as file:
            if file.read(len(magic)) != magic:
                raise ConfigError(f"{path}: {shown} is no array; expected an .npz file as numpy.savez writes it")
        with archive.open(member) as file:
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
            rest = file.read(1)  # zipfile compares the checksum when the end is reached
    except _DAMAGED as error:
        raise ConfigError(f"{path}: array {shown} cannot be read: {printable(str(error), 300)}") from error
    if rest:
        raise ConfigError(f"{path}: array {shown} cannot be read: expected {array.nbytes} bytes of data, found more")
    return array


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write all arrays, or leave the file as it was. Raises OSError."""
    write_atomically(path, encode_npz(arrays))


def encode_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An .npz file with these arrays; equal arrays give equal bytes, for zipfile dates every member 1980.

    Any name is legal, which `numpy.savez` does not promise.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()
