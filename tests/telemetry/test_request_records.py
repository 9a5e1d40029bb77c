"""Requests and outcomes on their way into a recording: described once, encoded fast, and the same bytes as ever."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import cast

import msgspec
import numpy as np
import pytest

from messages import (
    ConsumerReported,
    Infer,
    InferCompleted,
    InferRejected,
    Message,
    Tensor,
    TensorSpec,
    ThermalState,
    WireFormatError,
    encode_json,
)
from telemetry import request_records
from telemetry.request_records import KNOWN_SPECS_MAX, InferRecord, encode_record, record_of

FRAME = np.zeros((1, 3, 8, 8), np.float16)
INFER = Infer("vpr", {"image": FRAME}, "c2", 1, 5, 7, 9)
COMPLETED = InferCompleted("vpr", "c2", 1, 7, {"y": np.zeros(4, np.float32), "z": np.zeros((), np.bool_)}, 1, 2, 3)
REJECTED = InferRejected("vpr", "c2", 1, 7, "expired", 'a "detail"\nof two lines: µ', inputs_released=False)


class ListShaped:
    """A tensor of a library that says its shape as a list."""

    dtype = np.dtype("int8")

    @property
    def shape(self) -> list[int]:
        return [2, 3]


@pytest.mark.parametrize("message", [INFER, COMPLETED, REJECTED, ConsumerReported("vpr", 1, good=True), ThermalState()])
def test_a_record_has_the_bytes_of_the_wire_form(message: Message) -> None:
    assert encode_record(record_of(message)) == encode_json(message)


def test_a_description_says_the_same_as_the_message_and_keeps_no_tensor() -> None:
    frame = np.zeros(1000)
    gone = weakref.ref(frame)
    described = record_of(Infer("vpr", {"image": frame}, "c2", 1, 5, 7, 9))
    del frame
    gc.collect()
    assert gone() is None
    assert isinstance(described, InferRecord)
    assert described.inputs == {"image": TensorSpec((1000,), "float64")}
    fields = [getattr(described, name) for name in described.__struct_fields__ if name != "inputs"]
    assert fields == ["vpr", "c2", 1, 5, 7, 9]


def test_what_is_described_already_stays_as_it_is() -> None:
    specs = {"image": TensorSpec((2, -1), "int8")}
    described = record_of(Infer("vpr", specs, "c2", 1, 5, 7))
    assert isinstance(described, InferRecord)
    assert described.inputs == specs


def test_a_tensor_whose_shape_cannot_be_looked_up_is_described_all_the_same() -> None:
    described = record_of(Infer("vpr", {"image": cast("Tensor", ListShaped())}, "c2", 1, 5, 7))
    assert isinstance(described, InferRecord)
    assert described.inputs == {"image": TensorSpec((2, 3), "int8")}


def test_shapes_that_are_always_new_do_not_fill_the_memory() -> None:
    for extent in range(2 * KNOWN_SPECS_MAX):
        described = record_of(Infer("vpr", {"x": np.zeros((extent, 0), np.int8)}, "c2", 1, 5, 7))
        assert isinstance(described, InferRecord)
        assert described.inputs == {"x": TensorSpec((extent, 0), "int8")}
    assert len(request_records._known_specs) <= KNOWN_SPECS_MAX


@pytest.mark.parametrize(
    "break_it",
    [
        lambda: Infer("x" * 200, {}, "c2", 1, 5, 7),
        lambda: Infer("vpr", {}, "c2", -1, 5, 7),
        lambda: Infer("vpr", {}, "c2", 2**70, 5, 7),
        lambda: Infer("vpr", {}, "\ud800", 1, 5, 7),
        lambda: msgspec.structs.replace(REJECTED, detail="x" * 100_000),
    ],
)
def test_a_request_that_could_not_be_read_back_is_refused_as_by_the_wire_form(break_it: Callable[[], Message]) -> None:
    with pytest.raises(WireFormatError):
        encode_record(record_of(break_it()))


def test_records_that_wait_are_none_of_the_collectors_business() -> None:
    assert not any(gc.is_tracked(record_of(message)) for message in (INFER, COMPLETED, REJECTED))
