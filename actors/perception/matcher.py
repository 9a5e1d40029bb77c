"""C3: how far the picture has moved since the last keyframes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from actors.lightglue_runtime import LightGlueRuntime
from actors.perception.compiled_engine import Engine
from actors.perception.features import KEYPOINTS_MIN, FeatureExtractor, Features, PairMatching
from actors.perception.frame_runs import FrameRuns
from actors.perception.options import require_counts
from messages import Tensor
from runtimes import InferenceRuntime

if TYPE_CHECKING:
    from actors.consumer import Frame

KEYFRAMES = 3
SURE = 0.1
"""The probability from which a match is taken for one; of unrelated pictures 1 keypoint in 20 has such a match."""


class Matcher:
    """Matches the frame against the last three keyframes, each at least `keyframe_every` frames after the one before.

    Degraded: any run gave no result. Without the frame's own features nothing is measured and no keyframe made; a
    keyframe that was not matched is missing from `moved_px`, the others are there.
    """

    def __init__(
        self,
        c7_inference: InferenceRuntime,
        c3_lightglue_runtime: LightGlueRuntime,
        *,
        extractor: Engine,
        keypoints: int,
        keyframe_every: int = 2,
    ) -> None:
        require_counts("matcher", keypoints=keypoints, keyframe_every=keyframe_every)
        self._matching = PairMatching(c3_lightglue_runtime, keypoints)
        self._extractor = FeatureExtractor(c7_inference, extractor, self._matching)
        self._keyframe_every = keyframe_every
        self._keyframes: deque[tuple[int, Features]] = deque(maxlen=KEYFRAMES)
        self.moved_px: dict[int, tuple[float, float]] = {}
        """Keyframe -> by how much its keypoints lie elsewhere now, (x, y), where enough of them are found again."""

    def on_frame(self, frame: Frame) -> str | None:
        self.moved_px = {}
        runs = FrameRuns()
        now = self._extractor.extract(runs, frame.image)
        if now is None:
            return runs.degraded
        for keyframe_id, keyframe in self._keyframes:
            outputs = self._matching.match(runs, now, keyframe)
            if outputs is not None and (moved := movement_px(now, keyframe, outputs)) is not None:
                self.moved_px[keyframe_id] = moved
        if not self._keyframes or frame.frame_id - self._keyframes[-1][0] >= self._keyframe_every:
            self._keyframes.append((frame.frame_id, now))
        return runs.degraded


def movement_px(now: Features, before: Features, outputs: Mapping[str, Tensor]) -> tuple[float, float] | None:
    """Pure. The median over the sure matches, None for too few: with random weights one in four is wrong, and the
    median does not mind.
    """
    partners, scores = np.asarray(outputs["matches"])[0], np.asarray(outputs["scores"])[0]
    sure = np.flatnonzero(scores > SURE)
    if len(sure) < KEYPOINTS_MIN:
        return None
    steps = now.keypoints[0, sure].astype(np.float32) - before.keypoints[0, partners[sure]].astype(np.float32)
    across, down = np.median(steps, axis=0)
    return float(across), float(down)
