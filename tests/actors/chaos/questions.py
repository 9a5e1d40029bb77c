"""Requests that know themselves: what an engine gives back says whose they were, so that a mix-up is seen."""

from __future__ import annotations

import time

import numpy as np

from messages import NS_PER_MS, InferCompleted, Tensor
from runtimes.fake_steps import Tensors

WITHIN_MS = (0.05, 1.0, 5.0, 20.0, 60.0, 330.0)
PADDINGS = 64
"""So many input signatures per consumer: of one that kills an engine twice the next request is refused as poison."""


def within_ms(frame_id: int) -> float:
    """How long a consumer gives this frame: whoever holds an outcome knows it."""
    return WITHIN_MS[frame_id % len(WITHIN_MS)]


def within_ns(frame_id: int) -> int:
    return int(within_ms(frame_id) * NS_PER_MS)


def question(consumer: str, frame_id: int, padding: int = 0) -> dict[str, Tensor]:
    """int64[2 + padding]: the consumer's number, the frame."""
    image = np.zeros(2 + padding, np.int64)
    image[:2] = int(consumer[1:]), frame_id
    return {"image": image}


def answer(inputs: Tensors) -> Tensors:
    """What an engine gives: the question, and the moment at which it was done, in CLOCK_MONOTONIC nanoseconds."""
    return {"y": inputs["image"], "done_at": np.array([time.monotonic_ns()], np.int64)}


def is_answer(outcome: InferCompleted) -> bool:
    y = outcome.outputs["y"]
    return isinstance(y, np.ndarray) and y[:2].tolist() == [int(outcome.consumer[1:]), outcome.frame_id]


def done_at_ns(outcome: InferCompleted) -> int:
    done_at = outcome.outputs["done_at"]
    assert isinstance(done_at, np.ndarray)
    return int(done_at[0])
