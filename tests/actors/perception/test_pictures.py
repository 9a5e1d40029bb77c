"""From a camera's picture to a network's input."""

from __future__ import annotations

import numpy as np
import pytest

from actors.perception import pictures
from actors.perception.pictures import require_pillow, texture, to_grey_patch, to_image
from messages import ConfigError, TensorSpec
from messages.tensor import DType

pytest.importorskip("PIL")


def image(height: int, width: int, dtype: DType = "float32") -> TensorSpec:
    return TensorSpec((1, 3, height, width), dtype)


def patch(side: int, dtype: DType = "float32") -> TensorSpec:
    return TensorSpec((1, 1, side, side), dtype)


@pytest.mark.parametrize(("height", "width"), [(200, 200), (120, 400), (333, 95), (1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_any_picture_becomes_what_the_engine_takes(height: int, width: int, dtype: DType) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture.flags.writeable = False
    for spec in (image(64, 64, dtype), image(48, 96, dtype)):
        tensor = to_image(picture, spec)
        assert (tensor.shape, tensor.dtype) == (spec.shape, np.dtype(dtype))
        assert tensor.flags.c_contiguous
    grey = to_grey_patch(picture, patch(32, dtype))
    assert (grey.shape, grey.dtype) == ((1, 1, 32, 32), np.dtype(dtype))
    assert grey.flags.c_contiguous


def test_black_and_white_lie_on_both_sides_of_zero() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    np.testing.assert_allclose(to_image(black, image(8, 8)), -1.8, atol=1e-6)
    np.testing.assert_allclose(to_image(white, image(8, 8)), 2.2, atol=1e-6)
    assert (to_grey_patch(black, patch(8)).max(), to_grey_patch(white, patch(8)).min()) == (0.0, 1.0)


def test_the_middle_of_a_wide_picture_is_seen_by_a_square_input() -> None:
    picture = np.zeros((10, 30, 3), np.uint8)
    picture[:, 10:20] = 255
    assert to_grey_patch(picture, patch(10)).min() == 1.0


def test_an_input_with_the_pictures_proportions_sees_all_of_it() -> None:
    picture = np.zeros((10, 30, 3), np.uint8)
    picture[:, :15] = 255
    seen = to_image(picture, image(10, 30))
    np.testing.assert_allclose(seen[..., :15], 2.2, atol=1e-6)
    np.testing.assert_allclose(seen[..., 15:], -1.8, atol=1e-6)


def test_a_plain_sky_has_no_texture_and_noise_has_much() -> None:
    sky = np.full((50, 50, 3), 180, np.uint8)
    noise = np.random.default_rng(2).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    assert texture(to_grey_patch(sky, patch(50, "float16"))) == 0.0
    assert texture(to_grey_patch(noise, patch(50, "float16"))) > 0.2


def test_without_pillow_a_component_is_refused_before_the_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    require_pillow()
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pillow, found it not installed"):
        require_pillow()
