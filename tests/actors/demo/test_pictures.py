"""From a camera's picture to a network's input."""

from __future__ import annotations

import numpy as np
import pytest

from actors.demo.pictures import texture, to_grey_patch, to_image

pytest.importorskip("PIL")


@pytest.mark.parametrize(("height", "width"), [(200, 200), (120, 400), (333, 95)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_any_picture_becomes_a_contiguous_square_of_the_asked_size_and_dtype(
    height: int, width: int, dtype: str
) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture.flags.writeable = False
    for tensor, channels in ((to_image(picture, 64, dtype), 3), (to_grey_patch(picture, 64, dtype), 1)):
        assert (tensor.shape, tensor.dtype) == ((1, channels, 64, 64), np.dtype(dtype))
        assert tensor.flags.c_contiguous


def test_black_and_white_lie_on_both_sides_of_zero() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    np.testing.assert_allclose(to_image(black, 8, "float32"), -1.8, atol=1e-6)
    np.testing.assert_allclose(to_image(white, 8, "float32"), 2.2, atol=1e-6)
    assert (to_grey_patch(black, 8, "float32").max(), to_grey_patch(white, 8, "float32").min()) == (0.0, 1.0)


def test_the_middle_of_a_wide_picture_is_seen() -> None:
    picture = np.zeros((10, 30, 3), np.uint8)
    picture[:, 10:20] = 255
    assert to_grey_patch(picture, 10, "float32").min() == 1.0


def test_a_plain_sky_has_no_texture_and_noise_has_much() -> None:
    sky = np.full((50, 50, 3), 180, np.uint8)
    noise = np.random.default_rng(2).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    assert texture(to_grey_patch(sky, 50, "float16")) == 0.0
    assert texture(to_grey_patch(noise, 50, "float16")) > 0.2
