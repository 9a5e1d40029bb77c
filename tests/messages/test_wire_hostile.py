"""Bytes from a broken disk or a stranger: always a WireFormatError, never more memory than they are long."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from messages import (
    WIRE_MAX_BYTES,
    WireFormatError,
    WireMessage,
    decode_json,
    decode_msgpack,
    encode_json,
    encode_msgpack,
)

pack = msgspec.msgpack.encode


def must_not_surprise(decode: Callable[[bytes], WireMessage], data: bytes) -> None:
    """A message that encodes again, or WireFormatError; any other exception fails the test."""
    try:
        message = decode(data)
    except WireFormatError:
        return
    encode_msgpack(message)


@given(data=st.binary(max_size=512))
@example(data=b"\xc1")
@example(data=b"\x81\xa4type\xa2\xff\xfe")
@example(data=b'{"type":"DeclarationRefused","detail":"\\ud800"}')
@pytest.mark.parametrize("decode", [decode_json, decode_msgpack])
def test_any_bytes_are_a_message_or_refused(decode: Any, data: bytes) -> None:
    must_not_surprise(decode, data)


@given(data=st.data())
@pytest.mark.parametrize(("encode", "decode"), [(encode_json, decode_json), (encode_msgpack, decode_msgpack)])
def test_an_altered_message_is_a_message_or_refused(
    encode: Any, decode: Any, data: st.DataObject, any_message: st.SearchStrategy[Any]
) -> None:
    original = bytearray(encode(data.draw(any_message)))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(original) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "repeat"])):
            case "flip":
                original[position] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del original[position : position + data.draw(st.integers(1, 8))]
            case "insert":
                original[position:position] = data.draw(st.binary(min_size=1, max_size=8))
            case "repeat":
                original[position:position] = original[: data.draw(st.integers(1, 64))]
        if not original:
            return
    must_not_surprise(decode, bytes(original))


@given(data=st.data())
@pytest.mark.parametrize(("encode", "decode"), [(encode_json, decode_json), (encode_msgpack, decode_msgpack)])
def test_a_message_cut_short_is_refused(
    encode: Any, decode: Any, data: st.DataObject, any_message: st.SearchStrategy[Any]
) -> None:
    whole = encode(data.draw(any_message))
    with pytest.raises(WireFormatError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


def with_claims(length: int) -> dict[str, bytes]:
    """msgpack messages in which one text, list or map claims `length` members that do not follow."""
    claim = struct.pack(">I", length)
    text, blob, array, table, extension = (bytes([c]) + claim for c in (0xDB, 0xC6, 0xDD, 0xDF, 0xC9))
    loaded = b"\x84" + pack("type") + pack("EngineLoaded") + pack("model")
    infer = b"\x87" + pack("type") + pack("Infer") + pack("inputs")
    return {
        "the message": table + pack("type") + pack("EngineLoaded"),
        "a list for the message": array,
        "a tag": b"\x81" + pack("type") + text,
        "a field's name": b"\x82" + pack("type") + pack("EngineLoaded") + text,
        "a name": loaded + text,
        "a name that is bytes": loaded + blob,
        "a name that is an extension": loaded + extension + b"\x01",
        "a list": b"\x83" + pack("type") + pack("AllEnginesLoaded") + pack("models") + array,
        "a list with a beginning": b"\x83"
        + pack("type")
        + pack("AllEnginesLoaded")
        + pack("models")
        + array
        + pack("m"),
        "a map": infer + table,
        "a shape": infer + b"\x81" + pack("x") + b"\x82" + pack("shape") + array + pack(1) * 100,
        "a field before the tag": b"\x83" + pack("models") + array,
    }


@pytest.mark.parametrize("length", [2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("place", with_claims(0).keys())
def test_a_claimed_length_is_refused_before_anything_is_allocated_for_it(place: str, length: int) -> None:
    data = with_claims(length)[place]
    tracemalloc.start()
    try:
        with pytest.raises(WireFormatError):
            decode_msgpack(data)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000


DEPTH = WIRE_MAX_BYTES // 8
NESTED = {
    "json lists": b"[" * DEPTH,
    "json objects": b'{"x":' * DEPTH,
    "json lists in a field": b'{"models":' + b"[" * DEPTH,
    "json lists in a tensor": b'{"type":"Infer","inputs":{"x":' + b"[" * DEPTH,
    "msgpack lists": b"\x91" * DEPTH,
    "msgpack maps": b"\x81\xa1x" * DEPTH,
    "msgpack lists in a field before the tag": b"\x82" + pack("models") + b"\x91" * DEPTH,
}


ATTACK = """
import resource, sys
from messages import WireFormatError, decode_json, decode_msgpack
def attack(data):
    for decode in (decode_json, decode_msgpack):
        try: decode(data)
        except WireFormatError: pass
        else: raise SystemExit("accepted: " + data[:60].hex())
def peak_kib(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
attacks = [bytes.fromhex(line) for line in sys.stdin]
attack(b"")
before_kib = peak_kib()
for data in attacks: attack(data)
print(peak_kib() - before_kib)
"""


def test_the_process_does_not_grow_under_any_of_it() -> None:
    """What tracemalloc cannot see: the peak resident size of a fresh process that decodes every attack of this file."""
    attacks = [*with_claims(2**31 - 1).values(), *with_claims(2**32 - 1).values(), *NESTED.values()]
    result = subprocess.run(  # noqa: S603 - our own interpreter, our own program
        [sys.executable, "-c", ATTACK],
        input="\n".join(data.hex() for data in attacks),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 1_024, "KiB; the stack of the deepest nesting is included"


@pytest.mark.parametrize("data", NESTED.values(), ids=NESTED.keys())
@pytest.mark.parametrize("decode", [decode_json, decode_msgpack])
def test_deep_nesting_is_refused(decode: Any, data: bytes) -> None:
    with pytest.raises(WireFormatError):
        decode(data)


def test_a_thousand_refusals_leave_nothing_behind() -> None:
    attacks = [*with_claims(2**31).values(), *NESTED.values()]
    tracemalloc.start()
    try:
        for data in attacks:
            must_not_surprise(decode_msgpack, data)
        before_bytes = tracemalloc.get_traced_memory()[0]
        for _ in range(1_000 // len(attacks)):
            for data in attacks:
                must_not_surprise(decode_msgpack, data)
        after_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after_bytes - before_bytes < 50_000
