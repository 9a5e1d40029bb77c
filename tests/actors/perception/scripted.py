"""Scripted engines of every component, small, with the inputs that real ones take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from actors.consumer import Frame
from messages import NS_PER_MS, InferenceError, RequestRejectedError, Tensor, TensorSpec
from messages.infer import RejectReason
from runtimes import FakeRuntime, computes, returns
from runtimes.fake_steps import Step

pytest.importorskip("PIL")

KEYPOINTS, WIDTH = 20, 4
INPUTS: dict[str, dict[str, TensorSpec]] = {
    "ultravpr": {"image": TensorSpec((1, 3, 16, 16), "float16")},
    "xfeat": {"image": TensorSpec((1, 3, 16, 24), "float32")},
    "lightglue": {
        f"{kind}{side}": TensorSpec((1, -1, width), "float16")
        for side in (0, 1)
        for kind, width in (("keypoints", 2), ("descriptors", WIDTH))
    },
    "adhop": {
        "query": TensorSpec((1, 1, 16, 16), "float32"),
        "reference": TensorSpec((1, 1, 16, 16), "float32"),
        "viewpoint": TensorSpec((1,), "int64"),
    },
}
OUTPUTS: dict[str, dict[str, Tensor]] = {
    "ultravpr": {"descriptor": np.ones((1, 4), np.float16) / 2},
    "xfeat": {
        "keypoints": np.arange(KEYPOINTS * 2, dtype=np.float32).reshape(1, KEYPOINTS, 2),
        "descriptors": np.ones((1, KEYPOINTS, WIDTH), np.float32),
        "scores": np.ones((1, KEYPOINTS), np.float32),
    },
    "lightglue": {"matches": np.arange(KEYPOINTS)[np.newaxis], "scores": np.ones((1, KEYPOINTS), np.float16)},
    "adhop": {"corners": np.zeros((1, 4, 2), np.float32)},
}
GOOD: dict[str, Step] = {model: returns(outputs) for model, outputs in OUTPUTS.items()}


def scripted(**steps: Step | Sequence[Step]) -> FakeRuntime:
    """All engines, each without fault but for `steps`."""
    scripts: Mapping[str, Step | Sequence[Step]] = {**GOOD, **steps}
    return FakeRuntime(scripts, inputs=INPUTS)


def rejects(reason: RejectReason) -> Step:
    """The run ends as a supervised runtime's does where the request was rejected."""

    def reject(_inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        raise RequestRejectedError(reason, f"no result, {reason}")

    return computes(reject)


def nth_runs(model: str, faults: Mapping[int, Step]) -> list[Step]:
    """Good runs but for those of `faults`, counted from 1."""
    return [faults.get(number, GOOD[model]) for number in range(1, max(faults) + 2)]


def runs_of(runtime: FakeRuntime, model: str) -> int:
    return sum(call.model == model for call in runtime.calls)


def frame(frame_id: int, *, captured_ms: int = 0) -> Frame:
    picture = np.random.default_rng(frame_id).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    picture.flags.writeable = False
    return Frame(frame_id, captured_ms * NS_PER_MS, picture)


def plain_frame(frame_id: int) -> Frame:
    return Frame(frame_id, 0, np.full((30, 40, 3), 128, np.uint8))


class NumberedTiles:
    """Ten tiles of noise; `read` counts."""

    def __init__(self) -> None:
        self.read_tiles: list[int] = []

    def read(self, frame_id: int) -> npt.NDArray[np.uint8]:
        self.read_tiles.append(frame_id)
        return frame(1000 + frame_id).image


FAULT = InferenceError("error 716")
