"""C2: where the aircraft has been before."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from actors.perception.compiled_engine import (
    CompiledEngine,
    Engine,
    entry_of,
    picture_input,
    require_inputs,
    require_outputs,
)
from actors.perception.frame_runs import FrameRuns
from actors.perception.options import require_counts
from actors.perception.pictures import Array, require_pillow, to_image
from runtimes import InferenceRuntime

if TYPE_CHECKING:
    from actors.consumer import Frame


class PlaceRecognition:
    """One descriptor a frame; the nearest of those remembered is where the aircraft may be.

    `engine`: `image [1, 3, height, width]` -> `descriptor [1, width]` of unit length. Of every `remember_every`-th
    frame the descriptor is remembered, the newest `remembered_max` of them.

    Degraded: the engine gave no result. Nothing is recognised in this frame then, and nothing of it remembered.
    """

    def __init__(
        self, c7_inference: InferenceRuntime, *, engine: Engine, remember_every: int = 3, remembered_max: int = 300
    ) -> None:
        require_counts("place recognition", remember_every=remember_every, remembered_max=remembered_max)
        require_pillow()
        entry = entry_of(engine)
        self._image = picture_input(entry, "image", channels=3)
        require_inputs(entry, "image")
        require_outputs(entry, "descriptor")
        self._engine = CompiledEngine(c7_inference, entry)
        self._remember_every = remember_every
        self._remembered: deque[tuple[int, Array]] = deque(maxlen=remembered_max)
        self.nearest_frame_id: int | None = None
        self.similarity = 0.0

    def on_frame(self, frame: Frame) -> str | None:
        self.nearest_frame_id, self.similarity = None, 0.0
        runs = FrameRuns()
        outputs = runs.ask(self._engine.model, self._engine.run, {"image": to_image(frame.image, self._image)})
        if outputs is None:
            return runs.degraded
        descriptor = np.asarray(outputs["descriptor"])[0].astype(np.float32)
        if self._remembered:
            similarities = np.stack([known for _, known in self._remembered]) @ descriptor
            nearest = int(similarities.argmax())
            self.nearest_frame_id, self.similarity = self._remembered[nearest][0], float(similarities[nearest])
        if frame.frame_id % self._remember_every == 0:
            self._remembered.append((frame.frame_id, descriptor))
        return None
