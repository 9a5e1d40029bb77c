"""Calibration tables in TensorRT's own text: what real ones look like, and what is no table."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.calibration.scales import CalibrationTable, missing_scales, parse_table

# Lines as TensorRT wrote them: names with colons, blanks, slashes and stars, and a scale of zero in one digit.
REAL = b"""TRT-100300-EntropyCalibration2
input_1:0: 3c010a14
/conv1/Conv_output_0: 3f9db09c
(Unnamed Layer* 4) [Fully Connected]_output: 3d65992f
366: 0
"""

SCALES = st.floats(min_value=0, width=32, allow_infinity=False, allow_nan=False).map(abs)
TENSORS = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, max_size=30)
TABLES = st.builds(
    CalibrationTable,
    version=st.from_regex(r"[0-9]{1,8}", fullmatch=True),
    calibrator=st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,20}", fullmatch=True),
    scales=st.dictionaries(TENSORS, SCALES, min_size=1, max_size=8),
)


def test_a_table_of_tensorrt_is_read() -> None:
    table = parse_table(REAL)
    assert (table.version, table.calibrator) == ("100300", "EntropyCalibration2")
    assert list(table.scales) == [
        "input_1:0",
        "/conv1/Conv_output_0",
        "(Unnamed Layer* 4) [Fully Connected]_output",
        "366",
    ]
    assert table.scales["input_1:0"] * 127 == pytest.approx(1, rel=1e-3)
    assert table.scales["366"] == 0


def test_a_table_of_tensorrt_is_written_as_tensorrt_writes_it() -> None:
    assert parse_table(REAL).format() == REAL


def test_scales_with_leading_zeros_and_no_last_newline_are_read_too() -> None:
    assert parse_table(b"TRT-8601-MinMaxCalibration\na: 00000000\nb: 3c010a14").scales["a"] == 0


@given(TABLES)
def test_parse_is_the_inverse_of_format(table: CalibrationTable) -> None:
    assert parse_table(table.format()) == table


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda raw: REAL + raw))
def test_any_bytes_are_a_table_or_refused(raw: bytes) -> None:
    try:
        table = parse_table(raw)
    except ValueError:
        return
    assert all(math.isfinite(scale) and scale >= 0 for scale in table.scales.values())
    assert parse_table(table.format()) == table


HEADER = b"TRT-100300-EntropyCalibration2\n"
REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "line 1: expected a header"),
    "no header": (b"input: 3c010a14\n", "line 1: expected a header"),
    "another header": (b"TRT 8.6 calibration\n", "line 1: expected a header"),
    "no scale": (HEADER, "expected the scales of tensors, found none"),
    "no name": (HEADER + b": 3c010a14\n", "line 2: expected '<tensor>: <scale in hexadecimal>'"),
    "no colon": (HEADER + b"input 3c010a14\n", "line 2"),
    "no digits": (HEADER + b"input: \n", "line 2"),
    "nine digits": (HEADER + b"input: 03c010a14\n", "line 2"),
    "decimal": (HEADER + b"input: 0.0078\n", "line 2"),
    "capitals": (HEADER + b"input: 3C010A14\n", "line 2"),
    "windows lines": (HEADER + b"input: 3c010a14\r\n", "line 2"),
    "blank line": (HEADER + b"a: 1\n\nb: 1\n", "line 3"),
    "infinity": (HEADER + b"input: 7f800000\n", "line 2: tensor input: expected a scale of 0 or more, found inf"),
    "no number": (HEADER + b"input: 7fc00000\n", "found nan"),
    "negative": (HEADER + b"input: bc010a14\n", "found -0.0078"),
    "negative zero": (HEADER + b"input: 80000000\n", "found -0.0"),
    "twice": (HEADER + b"a: 3c010a14\nb: 1\na: 3c010a15\n", "line 4: tensor a: expected one scale, found a second one"),
    "no text": (HEADER + b"\xff: 3c010a14\n", "utf-8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_table_is_refused_with_the_line(case: str) -> None:
    data, expected = REFUSED[case]
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the text is compared below
        parse_table(data)
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    "scales", [{"a\nb": 1.0}, {"a: 0\nb": 1.0}, {"a": -1.0}, {"a": math.nan}, {"a": 1e39}, {"": 1.0}, {}]
)
def test_a_table_that_would_not_read_back_is_not_written(scales: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        CalibrationTable(version="0", calibrator="MaxAbs", scales=scales).format()


def test_tensors_without_a_scale_are_found_and_zero_is_no_scale() -> None:
    table = parse_table(REAL)
    assert missing_scales(table, ["input_1:0", "366", "descriptor"]) == ("366", "descriptor")
    assert missing_scales(table, ["input_1:0"]) == ()


def test_a_tensors_name_does_not_steer_a_log_or_a_terminal() -> None:
    with pytest.raises(ValueError, match="tensor ") as refused:
        parse_table(b"TRT-100300-EntropyCalibration2\n\x1b[2K\r: 7f800000\n")
    assert str(refused.value).isprintable()
