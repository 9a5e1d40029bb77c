"""Requests and outcomes as they wait to be recorded: with their tensors described, and nothing else kept of them.

They are nearly all of a recording, two for every run of an engine. Describing them is paid for on the thread that asks
or answers, and thousands may wait for the disk. So they are invisible to the garbage collector, which would otherwise
stop one request in a hundred to look at them (`gc=False`: they hold text, numbers and descriptions, and no cycle).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Union, cast

import msgspec

from messages import (
    Infer,
    InferCompleted,
    InferRejected,
    Message,
    Tensor,
    TensorSpec,
    WireFormatError,
    WireMessage,
    decode_json,
    encode_json,
    specs_of,
)

KNOWN_SPECS_MAX = 1024
"""Shapes come from a few engines and profiles; a consumer whose every shape is new must not fill the memory."""

_known_specs: dict[tuple[object, ...], dict[str, TensorSpec]] = {}
_json_encoder = msgspec.json.Encoder()


class InferRecord(msgspec.Struct, frozen=True, tag="Infer", eq=False, gc=False):
    """An `Infer` on the wire."""

    model: str
    inputs: dict[str, TensorSpec]
    consumer: str
    frame_id: int
    deadline_ns: int
    request_id: int
    captured_ns: int


class InferCompletedRecord(msgspec.Struct, frozen=True, tag="InferCompleted", eq=False, gc=False):
    """An `InferCompleted` on the wire."""

    model: str
    consumer: str
    frame_id: int
    request_id: int
    outputs: dict[str, TensorSpec]
    generation: int
    queued_ns: int
    run_ns: int


Record = Union[InferRecord, InferCompletedRecord, WireMessage]
"""What waits to be written."""


def record_of(message: Message | WireMessage) -> Record:
    """The message with a `TensorSpec` for each tensor, keeping none. Raises what a tensor that is none raises."""
    if type(message) is Infer:
        return InferRecord(
            message.model,
            _described(message.inputs),
            message.consumer,
            message.frame_id,
            message.deadline_ns,
            message.request_id,
            message.captured_ns,
        )
    if type(message) is InferCompleted:
        return InferCompletedRecord(
            message.model,
            message.consumer,
            message.frame_id,
            message.request_id,
            _described(message.outputs),
            message.generation,
            message.queued_ns,
            message.run_ns,
        )
    return cast("WireMessage", message)


def encode_record(record: Record) -> bytes:
    """The bytes of `encode_json`, three times as fast for requests and outcomes: no field of theirs is a float, which
    JSON may have no word for. Raises WireFormatError for what could not be read back.
    """
    if not isinstance(record, InferRecord | InferCompletedRecord | InferRejected):
        return encode_json(record)
    try:
        data = _json_encoder.encode(record)
    except (msgspec.MsgspecError, TypeError, OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise WireFormatError(f"this {message_name(record)} has no wire form: {str(error)[:200]}") from error
    decode_json(data)  # a struct is not validated when it is made
    return data


def message_name(record: object) -> str:
    """The name of the message that `record` is or stands for."""
    return str(record.__struct_config__.tag) if isinstance(record, msgspec.Struct) else type(record).__name__


def _described(tensors: Mapping[str, Tensor] | Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """One dict for all requests that are alike: never changed."""
    if not isinstance(tensors, dict):
        raise TypeError(f"expected a dict of tensors, found a {type(tensors).__name__}")
    key: list[object] = []
    for name, tensor in tensors.items():
        key += (name, tensor.dtype, tensor.shape)
    alike = tuple(key)
    try:
        specs = _known_specs.get(alike)
    except TypeError:  # a shape that is a list, say, cannot be looked up
        return specs_of(tensors)
    if specs is None:
        specs = specs_of(tensors)
        if len(_known_specs) >= KNOWN_SPECS_MAX:
            _known_specs.clear()
        _known_specs[alike] = specs
    return specs
