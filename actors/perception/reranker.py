"""C2.5: which of ten candidate tiles of the map the aircraft is over."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, cast

import numpy as np

from actors.consumer import FrameSource, load_class
from actors.lightglue_runtime import LightGlueRuntime
from actors.perception.compiled_engine import Engine
from actors.perception.features import FeatureExtractor, Features, PairMatching
from actors.perception.frame_runs import FrameRuns
from actors.perception.options import require_counts
from actors.perception.pictures import Picture
from messages import ConfigError
from runtimes import InferenceRuntime

if TYPE_CHECKING:
    from actors.consumer import Frame

TILES = 10
TILE_OPTION = "tile_"
Scalar = str | int | float | bool


class ReRanker:
    """Matches the frame against ten candidate tiles and keeps the one with the most certain matches.

    `tile_source` gives the tiles' pictures as `read(0)` to `read(9)`: a `module:Class`, constructed with those options
    that begin with `tile_` (`tile_folder` is its `folder`), or such an object itself. All are read at construction. A
    tile's features are made once, as soon as a frame needs them: `tiles_per_frame` at a time, so that the first frames
    hold nobody else up.

    Degraded: any run gave no result. Without the frame's own features no tile is scored. A tile that got none is asked
    for again with the next frame; a tile that was not matched has no score, and the best of the others is kept.
    """

    def __init__(
        self,
        c7_inference: InferenceRuntime,
        c3_lightglue_runtime: LightGlueRuntime,
        *,
        extractor: Engine,
        keypoints: int,
        tile_source: str | FrameSource,
        tiles_per_frame: int = 2,
        **tile_options: Scalar,
    ) -> None:
        require_counts("re-ranker", keypoints=keypoints, tiles_per_frame=tiles_per_frame)
        source = open_tiles(tile_source, tile_options)
        self._missing = {tile: _checked(source.read(tile), tile) for tile in range(TILES)}
        self._matching = PairMatching(c3_lightglue_runtime, keypoints)
        self._extractor = FeatureExtractor(c7_inference, extractor, self._matching)
        self._tiles_per_frame = tiles_per_frame
        self._features: dict[int, Features] = {}
        self.best_tile: int | None = None
        self.scores: dict[int, float] = {}

    def on_frame(self, frame: Frame) -> str | None:
        self.best_tile, self.scores = None, {}
        runs = FrameRuns()
        own = self._extractor.extract(runs, frame.image)
        if own is None:
            return runs.degraded
        for tile in sorted(self._missing)[: self._tiles_per_frame]:
            made = self._extractor.extract(runs, self._missing[tile])
            if made is not None:
                self._features[tile] = made
                del self._missing[tile]
        for tile, features in self._features.items():
            outputs = self._matching.match(runs, own, features)
            if outputs is not None:
                self.scores[tile] = float(np.asarray(outputs["scores"], np.float32).sum())
        if self.scores:
            self.best_tile = max(self.scores, key=self.scores.__getitem__)
        return runs.degraded


def open_tiles(tile_source: str | FrameSource, tile_options: dict[str, Scalar]) -> FrameSource:
    """The source of the tiles' pictures. Raises ConfigError naming the option that does not fit."""
    foreign = sorted(name for name in tile_options if not name.startswith(TILE_OPTION))
    if foreign:
        raise ConfigError(
            f"re-ranker: found the options {', '.join(foreign)}; expected its own, and {TILE_OPTION}... for the source"
            " of the tiles"
        )
    if not isinstance(tile_source, str):
        if tile_options:
            raise ConfigError(
                f"re-ranker: found the options {', '.join(sorted(tile_options))} beside a tile_source that is an object"
                " already; remove them"
            )
        return tile_source
    cls = load_class(tile_source, "re-ranker tile_source")
    if not callable(getattr(cls, "read", None)):
        raise ConfigError(f"re-ranker tile_source: {tile_source} has no method read(...), which it is called by")
    options = {name[len(TILE_OPTION) :]: value for name, value in tile_options.items()}
    signature = inspect.signature(cls)
    try:
        signature.bind(**options)
    except TypeError as error:
        raise ConfigError(f"re-ranker: {sorted(tile_options)} do not fit {cls.__name__}{signature}: {error}") from error
    return cast("FrameSource", cls(**options))


def _checked(picture: Picture, tile: int) -> Picture:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ConfigError(
            f"tile {tile} of the re-ranker: expected uint8[height, width, 3], found {picture.dtype}"
            f"{list(picture.shape)}"
        )
    return picture
