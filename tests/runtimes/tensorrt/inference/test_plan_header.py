"""What an engine's first bytes say, before TensorRT sees any of them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import EngineDeserializeError
from runtimes.tensorrt.inference.plan_header import HEADER_BYTES, check_plan_version, read_plan_version


def plan(*version: int, magic: bytes = b"ftrt", layout: int = 0) -> bytes:
    return magic + struct.pack("<I", layout) + b"\xab" * 16 + bytes(version) + b"the rest"


def test_a_plan_says_which_tensorrt_wrote_it() -> None:
    assert read_plan_version("m.engine", plan(10, 3, 0, 26)) == (10, 3, 0, 26)


@pytest.mark.parametrize("here", ["10.3.0", "10.3.0.26", "10.3.0.26.1", "10.3"])
def test_a_plan_of_this_tensorrt_is_taken(here: str) -> None:
    check_plan_version("m.engine", plan(10, 3, 0, 26), here)


@pytest.mark.parametrize("here", ["10.3.1", "10.3.0.30", "10.4.0", "10.16.1.11"])
def test_a_plan_of_another_tensorrt_is_refused_naming_both(here: str) -> None:
    with pytest.raises(
        EngineDeserializeError, match=rf"m\.engine: expected .* TensorRT {here}, found one of 10\.3\.0\.26"
    ):
        check_plan_version("m.engine", plan(10, 3, 0, 26), here)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "found 0 bytes, fewer than its header of 28"),
        (plan(10, 3, 0, 26)[: HEADER_BYTES - 1], "found 27 bytes"),
        (plan(10, 3, 0, 26, magic=b"ptrt"), r"found b'ptrt' and layout 0"),
        (plan(10, 3, 0, 26, layout=1), r"found b'ftrt' and layout 1"),
        (b"\x08\x07" + bytes(100), "expected a TensorRT engine"),
    ],
)
def test_what_is_no_plan_is_refused_by_what_it_opens_with(data: bytes, found: str) -> None:
    with pytest.raises(EngineDeserializeError, match=found):
        check_plan_version("m.engine", data, "10.3.0")


@given(st.binary(max_size=64))
def test_any_bytes_are_a_version_or_a_refusal(data: bytes) -> None:
    try:
        version = read_plan_version("m.engine", data)
    except EngineDeserializeError:
        return
    assert data[:8] == b"ftrt\0\0\0\0"
    assert version == tuple(data[24:28])
