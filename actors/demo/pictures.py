"""From a camera's picture to what a network takes. NumPy and Pillow only: this runs beside the flight."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from actors.demo.frames import Picture

Array = npt.NDArray[np.floating]
MEAN, DEVIATION = 0.45, 0.25
"""About those of photographs, with values from 0 to 1."""


def to_image(picture: Picture, side_px: int, dtype: str) -> Array:
    """The middle square, scaled and normalised: `[1, 3, side_px, side_px]`."""
    square = _middle_square(picture, side_px, "RGB")
    normalised = (square.astype(np.float32) / 255.0 - MEAN) / DEVIATION
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[np.newaxis], dtype=dtype)


def to_grey_patch(picture: Picture, side_px: int, dtype: str) -> Array:
    """The middle square in grey values from 0 to 1: `[1, 1, side_px, side_px]`."""
    square = _middle_square(picture, side_px, "L")
    return np.ascontiguousarray((square.astype(np.float32) / 255.0)[np.newaxis, np.newaxis], dtype=dtype)


def texture(patch: Array) -> float:
    """Mean absolute step from pixel to pixel, 0 for a plain sky."""
    grey = patch[0, 0].astype(np.float32)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def _middle_square(picture: Picture, side_px: int, mode: str) -> npt.NDArray[np.uint8]:
    from PIL import Image

    height, width, _ = picture.shape
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    image = Image.fromarray(picture[top : top + side, left : left + side]).convert(mode)
    return np.asarray(image.resize((side_px, side_px), Image.Resampling.BILINEAR))
