"""The wire form carries every message both ways, and nothing that is not one."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import (
    WIRE_MAX_BYTES,
    AllEnginesLoaded,
    DeclareLanded,
    EngineLoaded,
    EngineLoadFailed,
    Infer,
    InferCompleted,
    InferRejected,
    TelemetryLost,
    Tensor,
    TensorSpec,
    ThermalState,
    WireFormatError,
    WireMessage,
    decode_json,
    decode_msgpack,
    encode_json,
    encode_msgpack,
    spec_of,
)
from messages.tensor import RANK_MAX, TENSORS_MAX

LOADED = EngineLoaded("ultravpr", 1, 2)
INT64_MAX = 2**63 - 1


def fields_of(message: object) -> Any:
    """Compare by value: messages that hold tensors have no equality of their own."""
    return msgspec.to_builtins(message)


@given(data=st.data())
def test_every_message_survives_both_wire_forms(data: st.DataObject, any_message: st.SearchStrategy[Any]) -> None:
    message = data.draw(any_message)
    for back in (decode_json(encode_json(message)), decode_msgpack(encode_msgpack(message))):
        assert type(back) is type(message)
        assert fields_of(back) == fields_of(message)


def test_the_union_covers_every_struct_with_a_tag_in_the_package() -> None:
    import messages.infer
    import messages.lifecycle
    import messages.thermal

    declared = {
        value.__name__
        for module in (messages.infer, messages.lifecycle, messages.thermal)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__struct_config__.tag
    }
    on_the_wire = {getattr(member, "__origin__", member).__name__ for member in get_args(WireMessage)}
    assert on_the_wire == declared


def test_tags_on_the_wire_are_the_class_names() -> None:
    assert json.loads(encode_json(LOADED)) == {
        "type": "EngineLoaded",
        "model": "ultravpr",
        "generation": 1,
        "load_ns": 2,
    }


def test_tensors_are_described_and_not_carried() -> None:
    request = Infer("ultravpr", {"image": np.ones((3, 1024, 1024), np.float16)}, "vpr", 7, 8, 9)
    result = InferCompleted("ultravpr", "vpr", 7, 9, {"descriptor": np.ones((1, 512), np.float32)}, 1, 2, 3)
    for message, tensors in ((request, "inputs"), (result, "outputs")):
        for encode, decode in ((encode_json, decode_json), (encode_msgpack, decode_msgpack)):
            data = encode(message)
            assert len(data) < 300
            specs = getattr(decode(data), tensors)
            assert specs == {name: spec_of(t) for name, t in getattr(message, tensors).items()}


def test_a_message_that_was_read_back_can_be_written_again() -> None:
    data = encode_msgpack(Infer("m", {"x": np.zeros((1, 2), np.int8)}, "c", 0, 0, 0))
    assert encode_msgpack(decode_msgpack(data)) == data


def test_a_temperature_that_was_not_read_survives_json_inside_a_transition() -> None:
    lost = TelemetryLost(ThermalState(cpu_temp_c=41.5), "hung", throttle_was_active=True)
    data = encode_json(lost)
    assert b"gpu_temp_c" not in data
    back = decode_json(data)
    assert isinstance(back, TelemetryLost)
    assert back.last_state.cpu_temp_c == 41.5
    assert math.isnan(back.last_state.gpu_temp_c)


@pytest.mark.parametrize("reading", [math.nan, math.inf, -math.inf])
def test_a_temperature_that_is_no_number_is_left_out_of_json(reading: float) -> None:
    back = decode_json(encode_json(ThermalState(gpu_temp_c=reading)))
    assert isinstance(back, ThermalState)
    assert math.isnan(back.gpu_temp_c)


def test_the_largest_request_that_the_limits_allow_fits() -> None:
    spec = TensorSpec((INT64_MAX,) * RANK_MAX, "bfloat16")
    names = [f"{index:0128}" for index in range(TENSORS_MAX)]
    message = Infer("m" * 128, dict.fromkeys(names, spec), "c" * 128, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX)
    for data in (encode_json(message), encode_msgpack(message)):
        assert len(data) <= WIRE_MAX_BYTES


@pytest.mark.parametrize("encode", [encode_json, encode_msgpack])
@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (EngineLoaded("", 1, 2), "length >= 1"),
        (EngineLoaded("m" * 129, 1, 2), "length <= 128"),
        (EngineLoaded("m", -1, 2), ">= 0"),
        (EngineLoaded("m", 2**63, 2), "9223372036854775807"),
        (EngineLoaded("m", 2**70, 2), "9223372036854775807|2\\*\\*64"),
        (EngineLoaded("m", np.int64(1), 2), "int64 has no wire form"),
        (EngineLoadFailed("m", 1, "x" * 1001), "length <= 1000"),
        (EngineLoadFailed("\ud800", 1, "x"), "surrogates not allowed"),
        (InferRejected("m", "c", 1, 2, "tired"), "tired"),  # type: ignore[arg-type]
        (Infer("m", {"x": np.array([None])}, "c", 1, 2, 3), "dtype object"),
        (Infer("m", {"x": object()}, "c", 1, 2, 3), "object has no wire form"),
        (Infer("m", {"x": [1, 2]}, "c", 1, 2, 3), "Expected `object`, got `array`"),
        (AllEnginesLoaded(("m",) * 257, 1), "length <= 256"),
        (AllEnginesLoaded(("€" * 128,) * 256, 1), "at most 65536 bytes"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_a_message_that_no_reader_would_accept_is_refused_at_encoding(
    encode: Any, message: Any, complaint: str
) -> None:
    with pytest.raises(WireFormatError, match=complaint) as refusal:
        encode(message)
    assert type(message).__name__ in str(refusal.value)


def changed(message: WireMessage, **changes: object) -> dict[str, object]:
    return {**msgspec.to_builtins(message), **changes}


REQUEST = Infer[TensorSpec]("m", {}, "c", 1, 2, 3)
REFUSED: dict[str, object] = {
    "a text for a count": changed(LOADED, generation="1"),
    "a float for a count": changed(LOADED, generation=1.0),
    "a bool for a count": changed(LOADED, generation=True),
    "null for a count": changed(LOADED, generation=None),
    "a negative count": changed(LOADED, generation=-1),
    "a count beyond int64": changed(LOADED, generation=2**63),
    "a number for a name": changed(LOADED, model=7),
    "an empty name": changed(LOADED, model=""),
    "an over-long name": changed(LOADED, model="m" * 129),
    "an unknown field": changed(LOADED, colour="red"),
    "an unknown tag": changed(LOADED, type="EngineLoadedTwice"),
    "a numeric tag": changed(LOADED, type=1),
    "no tag": {"model": "m", "generation": 1, "load_ns": 2},
    "a missing field": {"type": "EngineLoaded", "model": "m", "generation": 1},
    "a list instead of an object": ["EngineLoaded", "m", 1, 2],
    "a bare word": "EngineLoaded",
    "null": None,
    "a temperature that is text": changed(ThermalState(0.0, 0.0), cpu_temp_c="hot"),
    "a temperature that is null": changed(ThermalState(0.0, 0.0), cpu_temp_c=None),
    "too many cooling devices": changed(ThermalState(0.0, 0.0), throttled_by=["fan"] * 65),
    "an over-long cooling device": changed(ThermalState(0.0, 0.0), throttled_by=["f" * 129]),
    "too many models": changed(AllEnginesLoaded(("m",), 1), models=["m"] * 257),
    "an over-long detail": changed(EngineLoadFailed("m", 1, ""), detail="x" * 1001),
    "a reason that is none": changed(InferRejected("m", "c", 1, 2, "shed"), reason="tired"),
    "a tensor's data": changed(REQUEST, inputs={"x": [1.0, 2.0]}),
    "an unknown dtype": changed(REQUEST, inputs={"x": {"shape": [1], "dtype": "complex64"}}),
    "a shape below -1": changed(REQUEST, inputs={"x": {"shape": [-2], "dtype": "int8"}}),
    "a rank of seventeen": changed(REQUEST, inputs={"x": {"shape": [1] * 17, "dtype": "int8"}}),
    "sixty-five inputs": changed(REQUEST, inputs={f"x{i}": {"shape": [1], "dtype": "int8"} for i in range(65)}),
}
REFUSED_JSON = {
    "nothing": b"",
    "two messages": encode_json(DeclareLanded()) * 2,
    "a count of a thousand digits": b'{"type":"EngineLoaded","model":"m","load_ns":2,"generation":%s}' % (b"9" * 1000),
    "a count written as a float": b'{"type":"EngineLoaded","model":"m","load_ns":2,"generation":1e3}',
    "a temperature beyond float64": b'{"type":"ThermalState","cpu_temp_c":1e999}',
    "NaN, which is not JSON": b'{"type":"ThermalState","cpu_temp_c":NaN}',
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize(
    ("form", "decode"), [(msgspec.json, decode_json), (msgspec.msgpack, decode_msgpack)], ids=["json", "msgpack"]
)
def test_a_document_that_is_no_message_is_refused(form: Any, decode: Any, value: object) -> None:
    with pytest.raises(WireFormatError):
        decode(form.encode(value))


@pytest.mark.parametrize("data", REFUSED_JSON.values(), ids=REFUSED_JSON.keys())
def test_text_that_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(WireFormatError):
        decode_json(data)


@pytest.mark.parametrize("decode", [decode_json, decode_msgpack])
def test_bytes_over_the_limit_are_refused_by_their_length(decode: Any) -> None:
    with pytest.raises(WireFormatError, match=f"at most {WIRE_MAX_BYTES} bytes; got {WIRE_MAX_BYTES + 1}"):
        decode(b" " * (WIRE_MAX_BYTES + 1))


def test_the_error_names_the_field() -> None:
    with pytest.raises(WireFormatError, match=r"\$\.generation"):
        decode_json(msgspec.json.encode(REFUSED["a text for a count"]))


def test_the_error_stays_short_whatever_the_bytes_say() -> None:
    with pytest.raises(WireFormatError) as refusal:
        decode_json(msgspec.json.encode(changed(LOADED, type="x" * 60_000)))
    assert len(str(refusal.value)) < 300


def test_numpy_arrays_are_tensors_by_protocol() -> None:
    assert isinstance(np.zeros(3), Tensor)
