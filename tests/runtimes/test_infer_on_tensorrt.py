"""`c7 infer --runtime tensorrt`: an engine of the given shapes, and wrong inputs refused before it is built."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from messages import EngineBuildError, InvalidInputError
from runtimes.cli_infer import infer
from tests.runtimes.tensorrt.models import answers

if TYPE_CHECKING:
    from types import ModuleType

    from tests.doubles.tensorrt.core import Core


@pytest.fixture
def arrays() -> dict[str, Any]:
    random = np.random.default_rng(4)
    image, bias = random.normal(size=(2, 3, 8, 8)), random.normal(size=(2, 4))
    return {"image": image.astype(np.float32), "bias_by_image": bias.astype(np.float32)}


def call(model: Path, folder: Path, arrays: dict[str, Any], *options: str) -> Result:
    inputs, outputs = folder / "inputs.npz", folder / "outputs.npz"
    np.savez(inputs, **arrays)
    arguments = [str(model), "--inputs", str(inputs), "--outputs", str(outputs), "--runtime", "tensorrt", *options]
    return CliRunner().invoke(infer, arguments)


def test_an_onnx_file_gives_the_numbers_of_onnx_runtime_called_directly(
    trt: ModuleType, core: Core, descriptor_onnx: Path, tmp_path: Path, arrays: dict[str, Any]
) -> None:
    pytest.importorskip("polygraphy", reason="Polygraphy is not installed here")
    pytest.importorskip("onnxruntime")
    result = call(descriptor_onnx, tmp_path, arrays, "--json")
    assert result.exception is None
    assert "Builder" in core.calls
    report = json.loads(result.stdout)
    assert (report["runtime"], report["precision"]) == ("tensorrt", "fp16")
    with np.load(tmp_path / "outputs.npz") as found:
        expected = answers(descriptor_onnx.read_bytes(), arrays)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-2, atol=1e-3)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda x: x.pop("image"), "input image is missing: expected float32[?, 3, 8, 8], found bias_by_image"),
    "extra": (lambda x: x.update(mask=np.zeros(1)), "input mask is unknown: expected image, bias_by_image"),
    "type": (lambda x: x.update(image=x["image"].astype(np.float64)), "found float64[2, 3, 8, 8]"),
    "rank": (lambda x: x.update(image=x["image"][0]), "expected float32[?, 3, 8, 8], found float32[3, 8, 8]"),
    "extent": (lambda x: x.update(image=x["image"][:, :1]), "expected float32[?, 3, 8, 8], found float32[2, 1, 8, 8]"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_inputs_are_refused_by_name_and_nothing_is_built(
    trt: ModuleType, core: Core, descriptor_onnx: Path, tmp_path: Path, arrays: dict[str, Any], fault: str
) -> None:
    spoil, expected = WRONG[fault]
    spoil(arrays)
    result = call(descriptor_onnx, tmp_path, arrays)
    assert isinstance(result.exception, InvalidInputError)
    assert expected in str(result.exception)
    assert "Builder" not in core.calls
    assert not (tmp_path / "outputs.npz").exists()


def test_a_precision_that_the_model_cannot_have_is_refused_and_nothing_is_built(
    trt: ModuleType, core: Core, descriptor_onnx: Path, tmp_path: Path, arrays: dict[str, Any]
) -> None:
    result = call(descriptor_onnx, tmp_path, arrays, "--precision", "int8")
    assert isinstance(result.exception, EngineBuildError)
    assert "int8 is calibrated on a dataset" in str(result.exception)
    assert "Builder" not in core.calls
