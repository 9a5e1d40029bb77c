"""Calibration caches: bound to what they were made from, read in one way only, and never believed on their own word."""

from __future__ import annotations

import os
import random
import re
from itertools import combinations
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import CalibrationCacheError
from runtimes.calibration import cache as cache_module
from runtimes.calibration.cache import (
    CalibrationBinding,
    CalibrationCache,
    decode_calibration,
    load_calibration,
    trusted_calibration,
)

TABLE = b"TRT-100300-EntropyCalibration2\ninput_1:0: 3c010a14\n/conv1/Conv_output_0: 3f9db09c\n366: 0\n"
BINDING = CalibrationBinding(
    dataset_sha256="d" * 64,
    source_sha256="5" * 64,
    calibrator="EntropyCalibration2",
    library="tensorrt 10.3.0.30",
    batches=500,
)
OTHER: dict[str, str | int] = {
    "dataset_sha256": "e" * 64,
    "source_sha256": "6" * 64,
    "calibrator": "MinMaxCalibration",
    "library": "tensorrt 10.3.0.31",
    "batches": 499,
}
WHERE = Path("vpr.engine.calibration")
WHOLE = CalibrationCache(BINDING, TABLE).encode()
SEED = int(os.environ.get("C7_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
FLIPS = 150
CHAOS_FLIPS = int(os.environ.get("C7_CHAOS_FLIPS", "10000"))

SHA256 = st.binary(min_size=32, max_size=32).map(bytes.hex)
WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
BINDINGS = st.builds(
    CalibrationBinding,
    dataset_sha256=SHA256,
    source_sha256=SHA256,
    calibrator=st.just("EntropyCalibration2"),
    library=st.lists(WORDS, min_size=1, max_size=4).map(" ".join),
    batches=st.integers(1, 999_999_999),
)


def test_the_file_says_line_by_line_what_it_was_made_from() -> None:
    assert WHOLE.decode() == (
        "c7 calibration 1\n"
        f"dataset {'d' * 64}\n"
        f"source {'5' * 64}\n"
        "calibrator EntropyCalibration2\n"
        "library tensorrt 10.3.0.30\n"
        "batches 500\n"
        "table 3c194a2b028ce6c5ec4b00976a1c6caf3ae258dc639e554dcdc18727113e29dd\n"
        "\n" + TABLE.decode()
    )


def test_a_cache_made_from_what_is_expected_gives_the_librarys_bytes_back() -> None:
    cache = trusted_calibration(WHOLE, BINDING, where=WHERE)
    assert cache.table_text == TABLE
    assert cache.table.scales["366"] == 0


@given(BINDINGS)
def test_decode_is_the_inverse_of_encode(binding: CalibrationBinding) -> None:
    cache = CalibrationCache(binding, TABLE)
    assert decode_calibration(cache.encode()) == cache


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda raw: WHOLE + raw))
def test_any_bytes_are_a_cache_written_in_the_one_way_or_refused(raw: bytes) -> None:
    try:
        cache = decode_calibration(raw)
    except ValueError:
        return
    assert cache.encode() == raw


@pytest.mark.parametrize(
    "fields", [pair for count in (1, 2) for pair in combinations(OTHER, count)], ids=lambda fields: "-".join(fields)
)
def test_every_difference_is_named_with_both_sides_and_the_remedy(fields: tuple[str, ...]) -> None:
    expected = msgspec.structs.replace(BINDING, **{field: OTHER[field] for field in fields})
    with pytest.raises(CalibrationCacheError) as refused:
        trusted_calibration(WHOLE, expected, where=WHERE)
    text = str(refused.value)
    assert text.startswith("vpr.engine.calibration: made from something else: ")
    for field in fields:
        assert f"{field}: expected {OTHER[field]}, found {getattr(BINDING, field)}" in text
    assert text.count("expected") == len(fields)
    assert "calibrated anew" in text


def test_a_table_of_another_calibrator_is_neither_written_nor_read() -> None:
    other = TABLE.replace(b"EntropyCalibration2", b"MinMaxCalibration")
    with pytest.raises(ValueError, match="of calibrator EntropyCalibration2, found one of MinMaxCalibration"):
        CalibrationCache(BINDING, other).encode()
    claimed = msgspec.structs.replace(BINDING, calibrator="MinMaxCalibration")
    forged = CalibrationCache(claimed, other).encode().replace(b"calibrator MinMax", b"calibrator EntropyX")
    with pytest.raises(CalibrationCacheError, match="expected a table of calibrator EntropyX"):
        trusted_calibration(forged, BINDING, where=WHERE)


@pytest.mark.parametrize(
    "change",
    [
        {"dataset_sha256": "D" * 64},
        {"source_sha256": "5" * 63},
        {"calibrator": ""},
        {"library": "tensorrt\n10.3"},
        {"library": " tensorrt"},
        {"library": ""},
        {"library": "x" * 2000},
        {"batches": 0},
        {"batches": 10**9},
    ],
)
def test_a_binding_that_would_not_read_back_is_not_written(change: dict[str, str | int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        CalibrationCache(msgspec.structs.replace(BINDING, **change), TABLE).encode()


def refused_flips(flips: int, seed: int) -> int:
    """Flip one random bit `flips` times; every one must end in the typed error that names the file."""
    choose = random.Random(seed)
    for _ in range(flips):
        bit = choose.randrange(len(WHOLE) * 8)
        altered = bytearray(WHOLE)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CalibrationCacheError, match=re.escape(f"{WHERE}: ")):
            trusted_calibration(bytes(altered), BINDING, where=WHERE)
    return flips


def test_a_flipped_bit_is_refused() -> None:
    assert refused_flips(FLIPS, seed=7) == FLIPS


@pytest.mark.chaos
def test_ten_thousand_flipped_bits_are_refused() -> None:
    print(f"C7_CHAOS_SEED={SEED}")
    print(f"{refused_flips(CHAOS_FLIPS, SEED)} random bit flips in a cache of {len(WHOLE)} bytes: refused, 0 accepted")


def test_every_truncation_is_refused() -> None:
    for kept in range(len(WHOLE)):
        with pytest.raises(CalibrationCacheError, match=re.escape(f"{WHERE}: ")):
            trusted_calibration(WHOLE[:kept], BINDING, where=WHERE)


def test_a_cache_file_is_loaded_and_an_absent_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "vpr.engine.calibration"
    assert load_calibration(path, BINDING) is None
    path.write_bytes(WHOLE)
    assert load_calibration(path, BINDING) == CalibrationCache(BINDING, TABLE)


def test_what_lies_there_and_is_no_file_is_refused_and_not_taken_for_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real"
    real.write_bytes(WHOLE)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "dangling", "pipe", "folder"):
        with pytest.raises(CalibrationCacheError, match=rf"{name}: cannot be read: expected a regular file"):
            load_calibration(tmp_path / name, BINDING)
    monkeypatch.setattr(cache_module, "CALIBRATION_MAX_BYTES", 100)
    with pytest.raises(CalibrationCacheError, match="expected at most 100 bytes"):
        load_calibration(real, BINDING)
