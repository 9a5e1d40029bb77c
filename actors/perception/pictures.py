"""From a camera's picture to what a network takes. NumPy and Pillow only: this runs beside the flight."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from messages import ConfigError, TensorSpec

Picture = npt.NDArray[np.uint8]
"""`[height, width, 3]`, red green blue; read-only."""
Array = npt.NDArray[np.floating]
MEAN, DEVIATION = 0.45, 0.25
"""About those of photographs, with values from 0 to 1."""


def require_pillow() -> None:
    """Raise ConfigError where Pillow is not installed, without importing it: before takeoff, not at the first frame."""
    if find_spec("PIL") is None:
        raise ConfigError(
            "scaling pictures: expected the package pillow, found it not installed: pip install"
            " 'c7-inference[perception]'"
        )


def to_image(picture: Picture, spec: TensorSpec) -> Array:
    """The middle of the picture, scaled and normalised: `[1, 3, height, width]` of the input `spec`, in its dtype."""
    middle = _scaled_middle(picture, spec, "RGB")
    normalised = (middle.astype(np.float32) / 255.0 - MEAN) / DEVIATION
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[np.newaxis], dtype=spec.dtype)


def to_grey_patch(picture: Picture, spec: TensorSpec) -> Array:
    """The middle of the picture in grey values from 0 to 1: `[1, 1, height, width]` of the input `spec`."""
    middle = _scaled_middle(picture, spec, "L")
    return np.ascontiguousarray((middle.astype(np.float32) / 255.0)[np.newaxis, np.newaxis], dtype=spec.dtype)


def texture(patch: Array) -> float:
    """Mean absolute step from pixel to pixel, 0 for a plain sky."""
    grey = patch[0, 0].astype(np.float32)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def _scaled_middle(picture: Picture, spec: TensorSpec, mode: str) -> npt.NDArray[np.uint8]:
    """The largest part around the middle that has the input's proportions, at the input's size."""
    from PIL import Image

    to_height, to_width = spec.shape[2:]
    height, width, _ = picture.shape
    scale = min(height / to_height, width / to_width)
    part_height = max(1, min(height, round(to_height * scale)))
    part_width = max(1, min(width, round(to_width * scale)))
    left, top = (width - part_width) // 2, (height - part_height) // 2
    part = Image.fromarray(picture[top : top + part_height, left : left + part_width]).convert(mode)
    return np.asarray(part.resize((to_width, to_height), Image.Resampling.BILINEAR))
