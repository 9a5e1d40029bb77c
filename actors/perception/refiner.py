"""C3.5: the homography to the frame before, refined now and then."""

from __future__ import annotations

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
from actors.perception.options import require_amount, require_counts
from actors.perception.pictures import Array, require_pillow, texture, to_grey_patch
from messages import ConfigError
from runtimes import InferenceRuntime

if TYPE_CHECKING:
    from actors.consumer import Frame


class Refiner:
    """Asks on every `every_frames`-th frame, and on plain ground, where the texture is below `plain_below`.

    `engine`: `query` and `reference` `[1, 1, height, width]` and the index `viewpoint [1]` -> `corners [1, 4, 2]` in
    pixels. `viewpoints` is how many learned ones it has; the one for a frame is chosen by how much texture there is.

    Degraded: the engine gave no result. A frame on which it is not asked is good.
    """

    def __init__(
        self,
        c7_inference: InferenceRuntime,
        *,
        engine: Engine,
        viewpoints: int,
        every_frames: int = 5,
        plain_below: float = 0.03,
    ) -> None:
        require_counts("refiner", viewpoints=viewpoints, every_frames=every_frames)
        require_amount("refiner", "plain_below", plain_below)
        require_pillow()
        entry = entry_of(engine)
        self._patch = picture_input(entry, "query", channels=1)
        if picture_input(entry, "reference", channels=1) != self._patch:
            raise ConfigError(f"{entry.model}: expected query and reference of one size, found {entry.inputs}")
        require_inputs(entry, "query", "reference", "viewpoint")
        require_outputs(entry, "corners")
        self._index_dtype = entry.inputs["viewpoint"].dtype
        self._engine = CompiledEngine(c7_inference, entry)
        self._viewpoints = viewpoints
        self._every_frames, self._plain_below = every_frames, plain_below
        self._before: Array | None = None
        self.corners_px: Array | None = None

    def viewpoint(self, frame: Frame, roughness: float) -> int | None:
        """Which learned viewpoint this frame is refined with; None where it is not refined."""
        if frame.frame_id % self._every_frames != 0 and roughness >= self._plain_below:
            return None
        return min(int(roughness * 100.0), self._viewpoints - 1)

    def on_frame(self, frame: Frame) -> str | None:
        self.corners_px = None
        patch = to_grey_patch(frame.image, self._patch)
        before, self._before = (patch if self._before is None else self._before), patch
        viewpoint = self.viewpoint(frame, texture(patch))
        if viewpoint is None:
            return None
        runs = FrameRuns()
        index = np.array([viewpoint], self._index_dtype)
        inputs = {"query": patch, "reference": before, "viewpoint": index}
        outputs = runs.ask(self._engine.model, self._engine.run, inputs)
        if outputs is not None:
            self.corners_px = np.asarray(outputs["corners"])[0]
        return runs.degraded
