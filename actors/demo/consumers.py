"""The four perception components of the demo, as a user would write them: they ask, and say when they got nothing.

Each is built as `Class(client, **options)` and called on one thread of its own, frame by frame. A frame is good
(None), or degraded and the text says which model gave no result, and why.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actors.demo.frames import open_frames, reference_tiles
from actors.demo.pictures import Array, texture, to_grey_patch, to_image
from messages import InferRejected, Tensor

if TYPE_CHECKING:
    from actors.client import InferenceClient
    from actors.consumer import Frame

KEYPOINTS_MIN = 8
"""The matcher's profile starts here: with fewer there is no pose to be had."""
KEYFRAMES = 3
SURE = 0.1
"""The probability from which a match is taken for one; of unrelated pictures 1 keypoint in 20 has such a match."""


@dataclass(frozen=True, eq=False)
class Features:
    """What the extractor found in one picture, strongest first: `[1, n, 2]` in pixels and `[1, n, width]`."""

    keypoints: Array
    descriptors: Array

    @classmethod
    def of(cls, outputs: Mapping[str, Tensor]) -> Features:
        """Places without any heat only fill the extractor's fixed number, and are left out."""
        found = max(KEYPOINTS_MIN, int((np.asarray(outputs["scores"])[0] > 0).sum()))
        return cls(np.asarray(outputs["keypoints"])[:, :found], np.asarray(outputs["descriptors"])[:, :found])

    def against(self, other: Features, count: int) -> dict[str, Tensor]:
        """The matcher's inputs for the `count` strongest of each side."""
        return {
            "keypoints0": np.ascontiguousarray(self.keypoints[:, :count]),
            "descriptors0": np.ascontiguousarray(self.descriptors[:, :count]),
            "keypoints1": np.ascontiguousarray(other.keypoints[:, :count]),
            "descriptors1": np.ascontiguousarray(other.descriptors[:, :count]),
        }


class PlaceRecognition:
    """C2: one descriptor a frame; the nearest of those remembered is where the aircraft may be."""

    def __init__(
        self,
        client: InferenceClient,
        *,
        image_px: int,
        dtype: str,
        within_ms: float,
        remember_every: int = 3,
        remembered_max: int = 300,
    ) -> None:
        self._client = client
        self._image_px, self._dtype, self._within_ms = image_px, dtype, within_ms
        self._remember_every = remember_every
        self._remembered: deque[tuple[int, Array]] = deque(maxlen=remembered_max)
        self.nearest_frame_id: int | None = None
        self.similarity = 0.0

    def on_frame(self, frame: Frame) -> str | None:
        self.nearest_frame_id, self.similarity = None, 0.0
        outcome = self._client.infer(
            "backbone",
            {"image": to_image(frame.image, self._image_px, self._dtype)},
            within_ms=self._within_ms,
            frame_id=frame.frame_id,
            captured_ns=frame.captured_ns,
        )
        if isinstance(outcome, InferRejected):
            return no_result(outcome)
        descriptor = np.asarray(outcome.outputs["descriptor"])[0].astype(np.float32)
        if self._remembered:
            similarities = np.stack([known for _, known in self._remembered]) @ descriptor
            nearest = int(similarities.argmax())
            self.nearest_frame_id, self.similarity = self._remembered[nearest][0], float(similarities[nearest])
        if frame.frame_id % self._remember_every == 0:
            self._remembered.append((frame.frame_id, descriptor))
        return None


class ReRanker:
    """C2.5: matches the frame against ten candidate tiles and keeps the one with the most certain matches.

    A tile's features are made once, through the client, as soon as a frame needs them: `tiles_per_frame` at a time,
    so that the first frames hold nobody else up. `frames` is the folder of the user's pictures, if any.
    """

    def __init__(
        self,
        client: InferenceClient,
        *,
        image_px: int,
        dtype: str,
        keypoints: int,
        extract_within_ms: float,
        match_within_ms: float,
        tiles: int = 10,
        tiles_per_frame: int = 2,
        frames: str = "",
    ) -> None:
        self._client = client
        self._image_px, self._dtype, self._keypoints = image_px, dtype, keypoints
        self._extract_within_ms, self._match_within_ms = extract_within_ms, match_within_ms
        self._missing = dict(enumerate(reference_tiles(open_frames(frames), tiles)))
        self._tiles_per_frame = tiles_per_frame
        self._features: dict[int, Features] = {}
        self.best_tile: int | None = None
        self.scores: dict[int, float] = {}

    def on_frame(self, frame: Frame) -> str | None:
        self.best_tile, self.scores = None, {}
        wanted = sorted(self._missing)[: self._tiles_per_frame]
        pictures = [frame.image, *(self._missing[tile] for tile in wanted)]
        own, *made = self._client.infer_many(
            "extractor",
            [{"image": to_image(picture, self._image_px, self._dtype)} for picture in pictures],
            within_ms=self._extract_within_ms * len(pictures),
            frame_id=frame.frame_id,
            captured_ns=frame.captured_ns,
        )
        for tile, outcome in zip(wanted, made, strict=True):
            if not isinstance(outcome, InferRejected):
                self._features[tile] = Features.of(outcome.outputs)
                del self._missing[tile]
        rejected = [outcome for outcome in (own, *made) if isinstance(outcome, InferRejected)]
        if isinstance(own, InferRejected):
            return no_result(own)
        features = Features.of(own.outputs)
        outcomes = self._client.infer_many(
            "matcher",
            [features.against(tile, self._keypoints) for tile in self._features.values()],
            within_ms=self._match_within_ms,
            frame_id=frame.frame_id,
            captured_ns=frame.captured_ns,
        )
        for tile, outcome in zip(self._features, outcomes, strict=True):
            if isinstance(outcome, InferRejected):
                rejected.append(outcome)
            else:
                self.scores[tile] = float(np.asarray(outcome.outputs["scores"], np.float32).sum())
        if self.scores:
            self.best_tile = max(self.scores, key=self.scores.__getitem__)
        return no_result(*rejected)


class Matcher:
    """C3: matches the frame against the last three keyframes and measures how far the picture has moved."""

    def __init__(
        self,
        client: InferenceClient,
        *,
        image_px: int,
        dtype: str,
        keypoints: int,
        extract_within_ms: float,
        match_within_ms: float,
        keyframe_every: int = 2,
    ) -> None:
        self._client = client
        self._image_px, self._dtype, self._keypoints = image_px, dtype, keypoints
        self._extract_within_ms, self._match_within_ms = extract_within_ms, match_within_ms
        self._keyframe_every = keyframe_every
        self._keyframes: deque[tuple[int, Features]] = deque(maxlen=KEYFRAMES)
        self.moved_px: dict[int, tuple[float, float]] = {}
        """Keyframe -> by how much its keypoints lie elsewhere now, (x, y), where enough of them are found again."""

    def on_frame(self, frame: Frame) -> str | None:
        self.moved_px = {}
        extracted = self._client.infer(
            "extractor",
            {"image": to_image(frame.image, self._image_px, self._dtype)},
            within_ms=self._extract_within_ms,
            frame_id=frame.frame_id,
            captured_ns=frame.captured_ns,
        )
        if isinstance(extracted, InferRejected):
            return no_result(extracted)
        features = Features.of(extracted.outputs)
        outcomes = self._client.infer_many(
            "matcher",
            [features.against(keyframe, self._keypoints) for _, keyframe in self._keyframes],
            within_ms=self._match_within_ms,
            frame_id=frame.frame_id,
            captured_ns=frame.captured_ns,
        )
        rejected = []
        for (keyframe_id, keyframe), outcome in zip(self._keyframes, outcomes, strict=True):
            if isinstance(outcome, InferRejected):
                rejected.append(outcome)
            elif (moved := _movement_px(features, keyframe, outcome.outputs)) is not None:
                self.moved_px[keyframe_id] = moved
        if not self._keyframes or frame.frame_id - self._keyframes[-1][0] >= self._keyframe_every:
            self._keyframes.append((frame.frame_id, features))
        return no_result(*rejected)


class Refiner:
    """C3.5: refines the homography to the frame before, now and then: on every n-th frame, and on plain ground.

    The learned viewpoint is chosen by how much texture there is. For the demonstration of a crash, the first frame
    within ten from `fault_at_frame` on asks once for a viewpoint that the network does not have: its shape and dtype
    are right, so only the runtime finds out, while it runs. Below 0 none does.
    """

    def __init__(
        self,
        client: InferenceClient,
        *,
        image_px: int,
        dtype: str,
        viewpoints: int,
        within_ms: float,
        every_frames: int = 5,
        plain_below: float = 0.03,
        fault_at_frame: int = -1,
    ) -> None:
        self._client = client
        self._image_px, self._dtype, self._within_ms = image_px, dtype, within_ms
        self._viewpoints = viewpoints
        self._every_frames, self._plain_below = every_frames, plain_below
        self._fault_frames = range(fault_at_frame, fault_at_frame + 10) if fault_at_frame >= 0 else range(0)
        self._before: Array | None = None
        self.corners_px: Array | None = None

    def on_frame(self, frame: Frame) -> str | None:
        self.corners_px = None
        patch = to_grey_patch(frame.image, self._image_px, self._dtype)
        before, self._before = (patch if self._before is None else self._before), patch
        rough = texture(patch)
        viewpoint = min(int(rough * 100.0), self._viewpoints - 1)
        if frame.frame_id in self._fault_frames:
            self._fault_frames = range(0)
            viewpoint = self._viewpoints
        elif frame.frame_id % self._every_frames != 0 and rough >= self._plain_below:
            return None
        outcome = self._client.infer(
            "refiner",
            {"query": patch, "reference": before, "viewpoint": np.array([viewpoint], np.int64)},
            within_ms=self._within_ms,
            frame_id=frame.frame_id,
            captured_ns=frame.captured_ns,
        )
        if isinstance(outcome, InferRejected):
            return no_result(outcome)
        self.corners_px = np.asarray(outcome.outputs["corners"])[0]
        return None


def no_result(*rejected: InferRejected) -> str | None:
    """`no result from matcher: expired, 3 of its runs`: the first of them, and how many more; None for none."""
    if not rejected:
        return None
    first = rejected[0]
    others = f" (and {len(rejected) - 1} more)" if len(rejected) > 1 else ""
    detail = f": {first.detail}" if first.detail else ""
    return f"no result from {first.model}: {first.reason}{detail}{others}"


def _movement_px(now: Features, before: Features, outputs: Mapping[str, Tensor]) -> tuple[float, float] | None:
    """The median over the sure matches: with random weights one in four is wrong, and the median does not mind."""
    partners, scores = np.asarray(outputs["matches"])[0], np.asarray(outputs["scores"])[0]
    sure = np.flatnonzero(scores > SURE)
    if len(sure) < KEYPOINTS_MIN:
        return None
    steps = now.keypoints[0, sure].astype(np.float32) - before.keypoints[0, partners[sure]].astype(np.float32)
    across, down = np.median(steps, axis=0)
    return float(across), float(down)
