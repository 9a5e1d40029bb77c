"""A library's own calibration table: TensorRT's text, one scale per tensor.

    TRT-100300-EntropyCalibration2
    input_1:0: 3c010a14
    (Unnamed Layer* 4) [Shuffle]_output: 0

The first line is version and algorithm. A scale is the bits of a big-endian IEEE 754 single in hexadecimal, without
leading zeros, and times 127 the largest magnitude that int8 shall hold: 3c010a14 is 0.007876, for magnitudes up to 1.
Names hold colons and blanks, so a line is read from its right, as trtexec does.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable

import msgspec

from messages.errors import printable

_HEADER = re.compile(r"TRT-(?P<version>[0-9]{1,8})-(?P<calibrator>[A-Za-z][A-Za-z0-9]{0,63})")
_LINE = re.compile(r"(?P<tensor>.+): (?P<bits>[0-9a-f]{1,8})")


class CalibrationTable(msgspec.Struct, frozen=True, kw_only=True):
    """The scales by tensor, in the order of the table; each finite and not negative.

    A scale of 0 is what TensorRT writes for a tensor that was zero throughout: it cannot be quantised with it.
    """

    version: str
    calibrator: str
    scales: dict[str, float]

    def format(self) -> bytes:
        """Inverse of `parse_table`. Raises ValueError for what it would refuse."""
        lines = [f"TRT-{self.version}-{self.calibrator}"]
        lines += [f"{tensor}: {_bits(scale):x}" for tensor, scale in self.scales.items()]
        data = "".join(f"{line}\n" for line in lines).encode()
        if parse_table(data).scales.keys() != self.scales.keys():
            raise ValueError("expected tensors whose names fit on a line, found a name with a newline")
        return data


def parse_table(data: bytes) -> CalibrationTable:
    """Read a table as a library wrote it.

    Raises ValueError, with the line, for anything else: a scale that is negative or not finite is no magnitude, and of
    two scales for one tensor nobody knows which one holds.
    """
    first, *lines = data.decode("utf-8", errors="strict").split("\n")
    header = _HEADER.fullmatch(first)
    if header is None:
        raise ValueError(f"line 1: expected a header like 'TRT-100300-EntropyCalibration2', found {first[:80]!r}")
    if lines and not lines[-1]:
        lines.pop()
    scales: dict[str, float] = {}
    for number, line in enumerate(lines, start=2):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number}: expected '<tensor>: <scale in hexadecimal>', found {line[:120]!r}")
        tensor, scale = match["tensor"], _scale(match["bits"])
        shown = printable(tensor, 80)
        if not math.isfinite(scale) or math.copysign(1.0, scale) < 0:
            raise ValueError(f"line {number}: tensor {shown}: expected a scale of 0 or more, found {scale}")
        if tensor in scales:
            raise ValueError(f"line {number}: tensor {shown}: expected one scale, found a second one")
        scales[tensor] = scale
    if not scales:
        raise ValueError("expected the scales of tensors, found none")
    return CalibrationTable(version=header["version"], calibrator=header["calibrator"], scales=scales)


def missing_scales(table: CalibrationTable, tensors: Iterable[str]) -> tuple[str, ...]:
    """Those of the tensors that cannot be quantised: not in the table, or with a scale of 0.

    TensorRT only warns of them and runs such layers in another precision, which is a fallback that nobody asked for.
    """
    return tuple(tensor for tensor in tensors if not table.scales.get(tensor))


def _scale(bits: str) -> float:
    scale: float = struct.unpack(">f", bytes.fromhex(bits.zfill(8)))[0]
    return scale


def _bits(scale: float) -> int:
    """Of the nearest single. Raises ValueError where it has none."""
    try:
        bits: int = struct.unpack(">I", struct.pack(">f", scale))[0]
    except OverflowError as error:
        raise ValueError(f"expected a scale that fits a single, found {scale}") from error
    return bits
