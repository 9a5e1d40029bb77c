"""One inference request and its one outcome."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, get_args

import msgspec
from typing_extensions import TypeVar

from messages.errors import DETAIL_MAX_CHARS
from messages.tensor import TENSORS_MAX, Name, Tensor

TensorT = TypeVar("TensorT", default=Tensor, covariant=True)
"""Tensors inside the process; on the wire the same message carries `TensorSpec` in their place.

Covariant, because messages are frozen: an `Infer` made from NumPy arrays is an `Infer` of tensors.
"""

Counter = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A count, an identifier or nanoseconds: what an int64 holds."""
Detail = Annotated[str, msgspec.Meta(max_length=DETAIL_MAX_CHARS)]
Tensors = Annotated[dict[Name, TensorT], msgspec.Meta(max_length=TENSORS_MAX)]

RejectReason = Literal[
    "expired",
    "shed",
    "engine_unavailable",
    "unknown_model",
    "invalid_input",
    "inference_error",
    "out_of_memory",
    "cancelled",
    "shutting_down",
]
"""`expired`: the deadline passed, or could not have been met. `shed`: a newer frame took its place, or there was no
room. `engine_unavailable`: its engine loads, restarts, is quarantined, or shares a device that nobody may use any more.
`invalid_input`: names, dtypes or shapes do not fit. `inference_error`, `out_of_memory`: the run failed. `cancelled`: by
who asked. `shutting_down`: the flight ends, or the supervisor is dead. The rejection's `detail` says which of them.
"""
REJECT_REASONS: tuple[RejectReason, ...] = get_args(RejectReason)


class Infer(msgspec.Struct, Generic[TensorT], frozen=True, tag=True, eq=False, forbid_unknown_fields=True):
    """Run `model` on `inputs` before `deadline_ns`. Answered by exactly one outcome.

    `deadline_ns` and `captured_ns` are CLOCK_MONOTONIC nanoseconds of this boot; `captured_ns` is 0 where the
    consumer does not say when its frame was taken. `request_id` is unique within one life of the process; whoever sends
    the supervisor an `Infer` of its own says 0, and is given one.
    """

    model: Name
    inputs: Tensors[TensorT]
    consumer: Name
    frame_id: Counter
    deadline_ns: Counter
    request_id: Counter
    captured_ns: Counter = 0


class InferCompleted(msgspec.Struct, Generic[TensorT], frozen=True, tag=True, eq=False, forbid_unknown_fields=True):
    """The result. `generation` counts the engine's starts in this life; `queued_ns` and `run_ns` are durations."""

    model: Name
    consumer: Name
    frame_id: Counter
    request_id: Counter
    outputs: Tensors[TensorT]
    generation: Counter
    queued_ns: Counter
    run_ns: Counter


class InferRejected(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """No result for this request, and why.

    `inputs_released` is False where an engine may still be reading the inputs: leave those arrays alone.
    """

    model: Name
    consumer: Name
    frame_id: Counter
    request_id: Counter
    reason: RejectReason
    detail: Detail = ""
    inputs_released: bool = True


Outcome = InferCompleted[Tensor] | InferRejected
