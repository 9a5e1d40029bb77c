"""A calibration cache that says what it was made from, and is believed only where that is what is wanted.

    c7 calibration 1
    dataset <sha256>
    source <sha256>
    calibrator EntropyCalibration2
    library tensorrt 10.3.0.30
    batches 500
    table <sha256>

    TRT-100300-EntropyCalibration2
    input_1:0: 3c010a14

There is exactly one way to write given contents, and reading accepts only that one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec

from messages.errors import CalibrationCacheError
from messages.lifecycle import Sha256
from runtimes.calibration.scales import CalibrationTable, parse_table
from runtimes.store.engine_artifact import CALIBRATION_MAX_BYTES
from runtimes.store.regular_file import read_regular_file
from runtimes.store.sha256_sidecar import sha256_of

REMEDY = "remove this file and compile again: the model is calibrated anew then"

_FORMAT = "c7 calibration 1"
_HEADER = re.compile(
    rf"{_FORMAT}\n"
    r"dataset (?P<dataset_sha256>[0-9a-f]{64})\n"
    r"source (?P<source_sha256>[0-9a-f]{64})\n"
    r"calibrator (?P<calibrator>[A-Za-z][A-Za-z0-9]{0,63})\n"
    r"library (?P<library>[!-~]+(?: [!-~]+)*)\n"
    r"batches (?P<batches>[1-9][0-9]{0,8})\n"
    r"table (?P<table_sha256>[0-9a-f]{64})\n"
    r"\n"
)
_HEADER_MAX_BYTES = 1024


class CalibrationBinding(msgspec.Struct, frozen=True, kw_only=True):
    """All that the scales of a calibration depend on.

    `dataset_sha256` is the hash of the dataset's content (`Samples.sha256`), `calibrator` the algorithm as the table's
    first line names it, `library` name and full version of what calibrated, `batches` how many it saw.
    """

    dataset_sha256: Sha256
    source_sha256: Sha256
    calibrator: str
    library: str
    batches: Annotated[int, msgspec.Meta(ge=1)]


class CalibrationCache(msgspec.Struct, frozen=True):
    """What was calibrated, and the table byte for byte as the library wrote it."""

    binding: CalibrationBinding
    table_text: bytes

    @property
    def table(self) -> CalibrationTable:
        return parse_table(self.table_text)

    def encode(self) -> bytes:
        """The whole file. Raises ValueError for a table that is none, or another calibrator's, or an odd binding."""
        _check_table(self)
        bound = self.binding
        header = (
            f"{_FORMAT}\ndataset {bound.dataset_sha256}\nsource {bound.source_sha256}\ncalibrator {bound.calibrator}\n"
            f"library {bound.library}\nbatches {bound.batches}\ntable {sha256_of(self.table_text)}\n\n"
        )
        if _HEADER.fullmatch(header) is None or len(header) > _HEADER_MAX_BYTES:
            raise ValueError(f"expected a binding of plain hashes, names and numbers, found {bound}")
        return header.encode() + self.table_text


def decode_calibration(data: bytes) -> CalibrationCache:
    """Inverse of `encode`. Says only that the file is whole, not that it fits. Raises ValueError."""
    match = _HEADER.match(data[:_HEADER_MAX_BYTES].decode("latin-1"))
    if match is None:
        raise ValueError(
            f"expected '{_FORMAT}' and the lines that say what it was made from, found {data[:60]!r} and more"
        )
    fields = match.groupdict()
    text = data[match.end() :]
    found = sha256_of(text)
    if found != fields["table_sha256"]:
        raise ValueError(f"table altered: expected sha256 {fields['table_sha256']}, found {found}")
    binding = CalibrationBinding(
        dataset_sha256=fields["dataset_sha256"],
        source_sha256=fields["source_sha256"],
        calibrator=fields["calibrator"],
        library=fields["library"],
        batches=int(fields["batches"]),
    )
    cache = CalibrationCache(binding, text)
    _check_table(cache)
    return cache


def trusted_calibration(data: bytes, expected: CalibrationBinding, *, where: Path) -> CalibrationCache:
    """The cache in `data`, which was read from `where`, if it is whole and was made from just what is expected.

    Raises CalibrationCacheError naming the file and each difference, with what was expected and what was found.
    """
    try:
        cache = decode_calibration(data)
    except ValueError as error:
        raise CalibrationCacheError(f"{where}: not a calibration cache: {str(error)[:400]}; {REMEDY}") from error
    differences = binding_differences(expected, cache.binding)
    if differences:
        raise CalibrationCacheError(f"{where}: made from something else: {'; '.join(differences)}; {REMEDY}")
    return cache


def load_calibration(path: Path, expected: CalibrationBinding) -> CalibrationCache | None:
    """Read a cache file as `trusted_calibration` does; None where there is none. Links are not followed.

    Raises CalibrationCacheError for one that is there and cannot be read or trusted.
    """
    try:
        data = read_regular_file(path, max_bytes=CALIBRATION_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CalibrationCacheError(f"{path}: cannot be read: {error.strerror}; {REMEDY}") from error
    return trusted_calibration(data, expected, where=path)


def binding_differences(expected: CalibrationBinding, found: CalibrationBinding) -> list[str]:
    """Each field that differs, with both sides; empty where the cache may be used."""
    return [
        f"{field}: expected {getattr(expected, field)}, found {getattr(found, field)}"
        for field in CalibrationBinding.__struct_fields__
        if getattr(expected, field) != getattr(found, field)
    ]


def _check_table(cache: CalibrationCache) -> None:
    found = parse_table(cache.table_text).calibrator
    if found != cache.binding.calibrator:
        raise ValueError(f"expected a table of calibrator {cache.binding.calibrator}, found one of {found}")
