"""Requests and outcomes, as consumers write and match them."""

from __future__ import annotations

from typing import get_args

import msgspec
import numpy as np
import pytest

from messages import (
    REJECT_REASONS,
    Infer,
    InferCompleted,
    InferRejected,
    Outcome,
    RejectReason,
    TensorSpec,
    decode_msgpack,
    encode_msgpack,
)

COMPLETED = InferCompleted("ultravpr", "vpr", 7, 9, {"descriptor": np.ones((1, 512), np.float32)}, 1, 2, 37_000_000)
REJECTED = InferRejected("ultravpr", "vpr", 7, 9, "shed", "frame 8 took its place")


def told(outcome: Outcome) -> str:
    match outcome:
        case InferCompleted(outputs=outputs, run_ns=run_ns):
            return f"{outputs['descriptor'].shape} in {run_ns // 1_000_000} ms"
        case InferRejected(reason=reason, detail=detail):
            return f"{reason}: {detail}"


def test_outcomes_are_told_apart_by_match() -> None:
    assert told(COMPLETED) == "(1, 512) in 37 ms"
    assert told(REJECTED) == "shed: frame 8 took its place"


def test_what_is_read_back_matches_the_same_patterns() -> None:
    match decode_msgpack(encode_msgpack(COMPLETED)):
        case InferCompleted(outputs={"descriptor": TensorSpec(shape=shape)}, frame_id=7):
            assert shape == (1, 512)
        case other:
            pytest.fail(f"matched nothing: {other}")


def test_outputs_travel_by_reference() -> None:
    image = np.zeros((3, 4), np.float16)
    assert Infer("m", {"image": image}, "c", 1, 2, 3).inputs["image"] is image


def test_messages_that_hold_tensors_compare_by_identity() -> None:
    first, second = (Infer("m", {"x": np.zeros(2)}, "c", 1, 2, 3) for _ in range(2))
    assert first != second
    assert first == first
    assert len({first, second}) == 2


def test_messages_without_tensors_compare_by_value() -> None:
    assert InferRejected("m", "c", 1, 2, "shed") == InferRejected("m", "c", 1, 2, "shed")


@pytest.mark.parametrize("message", [Infer("m", {}, "c", 1, 2, 3), COMPLETED, REJECTED])
def test_messages_are_frozen(message: msgspec.Struct) -> None:
    with pytest.raises(AttributeError):
        message.frame_id = 8  # type: ignore[attr-defined]


def test_the_reasons_are_those_of_the_type() -> None:
    assert get_args(RejectReason) == REJECT_REASONS
    assert len(set(REJECT_REASONS)) == 9
