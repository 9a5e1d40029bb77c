"""Keypoints of a picture, and which of them LightGlue finds again in another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from actors.lightglue_runtime import LightGlueRuntime
from actors.perception.compiled_engine import (
    CompiledEngine,
    Engine,
    entry_of,
    picture_input,
    require_inputs,
    require_outputs,
)
from actors.perception.frame_runs import FrameRuns
from actors.perception.pictures import Array, Picture, require_pillow, to_image
from messages import ConfigError, Tensor
from runtimes import EngineCacheEntry, InferenceRuntime

KEYPOINTS_MIN = 8
"""With fewer there is no pose to be had."""
SIDES = (0, 1)
RANK = 3
"""Of what is known of keypoints: [1, n, width]."""


@dataclass(frozen=True, eq=False)
class Features:
    """What the extractor found in one picture, strongest first: `[1, n, 2]` in pixels and `[1, n, width]`."""

    keypoints: Array
    descriptors: Array

    @classmethod
    def of(cls, outputs: Mapping[str, Tensor], least: int = KEYPOINTS_MIN) -> Features:
        """Places without any heat only fill the extractor's fixed number, and are left out down to `least`."""
        found = max(least, int((np.asarray(outputs["scores"])[0] > 0).sum()))
        return cls(np.asarray(outputs["keypoints"])[:, :found], np.asarray(outputs["descriptors"])[:, :found])


class KeypointRange(NamedTuple):
    """How many keypoints of a picture an engine takes; `most` is None where it does not say."""

    least: int
    most: int | None


class PairMatching:
    """LightGlue with at most `keypoints` of each picture. Raises ConfigError where the engine does not take as many."""

    def __init__(self, lightglue: LightGlueRuntime, keypoints: int) -> None:
        entry = lightglue.entry
        require_inputs(entry, *(f"{kind}{side}" for side in SIDES for kind in ("keypoints", "descriptors")))
        require_outputs(entry, "matches", "scores")
        flat = [f"{name} {spec}" for name, spec in entry.inputs.items() if len(spec.shape) != RANK]
        if flat:
            raise ConfigError(
                f"{entry.model}: expected inputs of [1, n, width], found {', '.join(flat)}; name an engine that was"
                " compiled for this"
            )
        self.taken = keypoint_range(entry)
        least, most = self.taken
        if keypoints < least or (most is not None and keypoints > most):
            raise ConfigError(
                f"keypoints: expected {least} to {most or 'any number'}, which is what {entry.model} was compiled for,"
                f" found {keypoints}"
            )
        self._lightglue = lightglue
        self._keypoints = keypoints

    def require_features(self, extractor: EngineCacheEntry) -> None:
        """Raise ConfigError where the extractor finds too few keypoints or its descriptors have another width.

        What its engine does not say of them, the engine of LightGlue refuses in its runs.
        """
        spec = extractor.outputs.get("descriptors")
        if spec is None:
            return
        found, width = spec.shape[1:] if len(spec.shape) == RANK else (0, 0)
        taken = self._lightglue.entry.inputs["descriptors0"].shape[2]
        if 0 <= found < self.taken.least or (min(width, taken) >= 0 and width != taken):
            raise ConfigError(
                f"{extractor.model} gives descriptors {spec}: expected at least {self.taken.least} of width {taken},"
                f" which is what {self._lightglue.entry.model} takes; name engines that belong together"
            )

    def match(self, runs: FrameRuns, now: Features, before: Features) -> dict[str, Tensor] | None:
        """`matches [1, n]`, for each keypoint of `now` the one of `before`, and `scores [1, n]`, their probability."""
        inputs = {
            f"{kind}{side}": self._strongest(f"{kind}{side}", found)
            for side, features in zip(SIDES, (now, before), strict=True)
            for kind, found in (("keypoints", features.keypoints), ("descriptors", features.descriptors))
        }
        return runs.ask(self._lightglue.entry.model, self._lightglue.match, inputs)

    def _strongest(self, name: str, found: Array) -> Array:
        """In the engine's dtype: an extractor may be compiled in another precision."""
        return np.ascontiguousarray(found[:, : self._keypoints], dtype=self._lightglue.entry.inputs[name].dtype)


class FeatureExtractor:
    """The extractor's engine: `image [1, 3, height, width]` -> `keypoints`, `descriptors`, `scores`.

    Raises ConfigError where `matching` could not take what it finds.
    """

    def __init__(self, c7_inference: InferenceRuntime, extractor: Engine, matching: PairMatching) -> None:
        require_pillow()
        entry = entry_of(extractor)
        self._image = picture_input(entry, "image", channels=3)
        require_inputs(entry, "image")
        require_outputs(entry, "keypoints", "descriptors", "scores")
        matching.require_features(entry)
        self._least = matching.taken.least
        self._engine = CompiledEngine(c7_inference, entry)

    def extract(self, runs: FrameRuns, picture: Picture) -> Features | None:
        outputs = runs.ask(self._engine.model, self._engine.run, {"image": to_image(picture, self._image)})
        return None if outputs is None else Features.of(outputs, self._least)


def keypoint_range(entry: EngineCacheEntry) -> KeypointRange:
    """Pure. What LightGlue's profile or its fixed shapes allow, both sides together."""
    least, most = KEYPOINTS_MIN, None
    profile = {name: (low[1], high[1]) for name, low, _, high in entry.build_config.optimization_profiles}
    bounds = [(spec.shape[1], spec.shape[1]) for spec in entry.inputs.values() if spec.shape[1] > 0]
    bounds += [profile[name] for name in entry.inputs if name in profile]
    if bounds:
        least, most = max(low for low, _ in bounds), min(high for _, high in bounds)
    return KeypointRange(least, most)
