"""The demonstration's crash: one request that passes every check and fails inside the runtime while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.perception import Refiner
from actors.perception.compiled_engine import Engine
from runtimes import InferenceRuntime

if TYPE_CHECKING:
    from actors.consumer import Frame

FAULT_WITHIN_FRAMES = 10


class FaultyRefiner(Refiner):
    """C3.5 that asks once for a viewpoint that its network does not have.

    It does so on the first frame that it sees of the ten from `fault_at_frame` on; below 0 on none. Shape and dtype are
    right, so only the runtime finds out.
    """

    def __init__(
        self,
        c7_inference: InferenceRuntime,
        *,
        engine: Engine,
        viewpoints: int,
        fault_at_frame: int,
        every_frames: int = 5,
    ) -> None:
        super().__init__(c7_inference, engine=engine, viewpoints=viewpoints, every_frames=every_frames)
        self._missing_viewpoint = viewpoints
        self._fault_frames = (
            range(fault_at_frame, fault_at_frame + FAULT_WITHIN_FRAMES) if fault_at_frame >= 0 else range(0)
        )

    def viewpoint(self, frame: Frame, roughness: float) -> int | None:
        if frame.frame_id in self._fault_frames:
            self._fault_frames = range(0)
            return self._missing_viewpoint
        return super().viewpoint(frame, roughness)
