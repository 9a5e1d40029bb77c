"""`c7 infer`: the same numbers as the library called directly, and no half-written file whatever is wrong."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from messages import (
    C7Error,
    ConfigError,
    EngineBuildError,
    InvalidInputError,
    RuntimeNotAvailableError,
)
from runtimes import npz_file
from runtimes.cli_infer import default_precision, infer
from runtimes.config import C7InferenceConfig
from runtimes.npz_file import read_npz, write_npz

ONNX_ON_CPU = ("--runtime", "onnx_trt_ep", "--provider", "cpu")


@pytest.fixture
def inputs_npz(tmp_path: Path) -> Path:
    """What `descriptor_onnx` takes."""
    path = tmp_path / "inputs.npz"
    random = np.random.default_rng(4)
    image, bias = random.normal(size=(2, 3, 8, 8)), random.normal(size=(2, 4))
    np.savez(path, image=image.astype(np.float32), bias_by_image=bias.astype(np.float32))
    return path


@pytest.fixture
def outputs_npz(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder / "outputs.npz"


def call(model: Path, inputs: Path, outputs: Path, *options: str) -> Result:
    arguments = [str(model), "--inputs", str(inputs), "--outputs", str(outputs), *options]
    return CliRunner().invoke(infer, arguments)


def refused(result: Result, kind: type[C7Error], outputs: Path) -> str:
    """The text of the refusal; nothing is left in the folder of the outputs."""
    assert type(result.exception) is kind, result.output
    assert list(outputs.parent.iterdir()) == []
    assert result.output == ""
    return str(result.exception)


# The numbers.


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_an_onnx_file_gives_the_numbers_of_onnx_runtime_called_directly(
    light_onnx: Callable[[str], Path], tmp_path: Path, outputs_npz: Path, name: str
) -> None:
    ort = pytest.importorskip("onnxruntime")
    model = light_onnx(name)
    direct = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (given_input,), (output,) = direct.get_inputs(), direct.get_outputs()
    image = np.random.default_rng(6).normal(size=given_input.shape).astype(np.float32)
    np.savez(tmp_path / "x.npz", **{given_input.name: image})
    result = call(model, tmp_path / "x.npz", outputs_npz, *ONNX_ON_CPU)
    assert result.exit_code == 0, result.exception
    expected = direct.run(None, {given_input.name: image})[0]
    found = np.load(outputs_npz)[output.name]
    assert np.ptp(expected) > 1e-4, "a constant output would prove nothing"
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.torch
def test_a_pt2_file_gives_the_numbers_of_torch_called_directly(
    descriptor_pt2: Path, tmp_path: Path, outputs_npz: Path
) -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(8)
    image = random.normal(size=(3, 3, 8, 8)).astype(np.float16)
    bias = random.normal(size=(3, 4)).astype(np.float16)
    np.savez(tmp_path / "x.npz", image=image, bias_by_image=bias)
    result = call(descriptor_pt2, tmp_path / "x.npz", outputs_npz)
    assert result.exit_code == 0, result.exception
    direct = torch.export.load(io.BytesIO(descriptor_pt2.read_bytes())).module()
    expected = direct(torch.from_numpy(image), torch.from_numpy(bias))["descriptor"].detach().numpy()
    found = np.load(outputs_npz)["descriptor"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, expected)


# The report.


def test_the_report_says_what_ran_where_in_which_precision(
    descriptor_onnx: Path, inputs_npz: Path, outputs_npz: Path
) -> None:
    pytest.importorskip("onnxruntime")
    result = call(descriptor_onnx, inputs_npz, outputs_npz, *ONNX_ON_CPU)
    assert "on onnx_trt_ep[cpu] in fp32" in result.output
    assert "input   image          float32[2, 3, 8, 8]" in result.output
    assert "output  descriptor     float32[2, 4]" in result.output
    assert f"wrote {outputs_npz}" in result.output


def test_the_json_report_is_one_document(descriptor_onnx: Path, inputs_npz: Path, outputs_npz: Path) -> None:
    pytest.importorskip("onnxruntime")
    result = call(descriptor_onnx, inputs_npz, outputs_npz, *ONNX_ON_CPU, "--json")
    report = json.loads(result.output)
    assert report["runtime"] == "onnx_trt_ep[cpu]"
    assert report["precision"] == "fp32"
    assert report["outputs"]["descriptor"] == {"shape": [2, 4], "dtype": "float32"}
    assert report["outputs_file"] == str(outputs_npz)
    assert min(report["compile_ms"], report["load_ms"], report["run_ms"]) > 0


def test_no_engine_is_left_behind(descriptor_onnx: Path, inputs_npz: Path, outputs_npz: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert call(descriptor_onnx, inputs_npz, outputs_npz, *ONNX_ON_CPU).exit_code == 0
    assert list(outputs_npz.parent.iterdir()) == [outputs_npz]
    assert not (descriptor_onnx.parent / "engines").exists()


@pytest.mark.parametrize(
    ("config", "precision"),
    [
        (C7InferenceConfig(), "fp16"),
        (C7InferenceConfig(runtime="tensorrt", device="cuda"), "fp16"),
        (C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"), "fp32"),
        (C7InferenceConfig(runtime="onnx_trt_ep", provider="cuda"), "fp16"),
        (C7InferenceConfig(runtime="onnx_trt_ep", provider="tensorrt"), "mixed"),
    ],
)
def test_the_default_precision_is_what_the_runtime_guarantees(config: C7InferenceConfig, precision: str) -> None:
    assert default_precision(config) == precision


# Bad input.


def test_a_model_of_another_runtime_is_refused_saying_what_to_pass(
    descriptor_onnx: Path, inputs_npz: Path, outputs_npz: Path
) -> None:
    text = refused(call(descriptor_onnx, inputs_npz, outputs_npz), ConfigError, outputs_npz)
    assert "runtime pytorch_fp16 takes .pt2 files, got '.onnx'; pass --runtime onnx_trt_ep --provider cpu" in text
    program = descriptor_onnx.with_suffix(".pt2")
    text = refused(call(program, inputs_npz, outputs_npz, *ONNX_ON_CPU), ConfigError, outputs_npz)
    assert "pass --runtime pytorch_fp16" in text


def test_onnx_without_a_provider_is_refused_naming_the_three(
    descriptor_onnx: Path, inputs_npz: Path, outputs_npz: Path
) -> None:
    result = call(descriptor_onnx, inputs_npz, outputs_npz, "--runtime", "onnx_trt_ep")
    assert "tensorrt, cuda or cpu" in refused(result, ConfigError, outputs_npz)


def test_a_missing_or_truncated_model_is_refused(descriptor_onnx: Path, inputs_npz: Path, outputs_npz: Path) -> None:
    pytest.importorskip("onnxruntime")
    missing = call(descriptor_onnx.with_name("gone.onnx"), inputs_npz, outputs_npz, *ONNX_ON_CPU)
    assert "gone.onnx" in refused(missing, EngineBuildError, outputs_npz)
    descriptor_onnx.write_bytes(descriptor_onnx.read_bytes()[:-40])
    truncated = call(descriptor_onnx, inputs_npz, outputs_npz, *ONNX_ON_CPU)
    assert "cut off" in refused(truncated, EngineBuildError, outputs_npz)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda x: x.pop("image"), "image is missing: expected float32[?, 3, 8, 8], found bias_by_image"),
    "extra": (lambda x: x.update(mask=np.zeros(1)), "mask is unknown: expected image, bias_by_image"),
    "dtype": (lambda x: x.update(image=x["image"].astype(np.float64)), "found float64[2, 3, 8, 8]"),
    "shape": (lambda x: x.update(image=x["image"][:, :1]), "image: expected float32[?, 3, 8, 8], found float32[2, 1,"),
    "text": (lambda x: x.update(image=np.array(["a", "b"])), "image: expected float32[?, 3, 8, 8], found str"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_inputs_are_refused_by_name(
    descriptor_onnx: Path, inputs_npz: Path, outputs_npz: Path, fault: str
) -> None:
    pytest.importorskip("onnxruntime")
    spoil, expected = WRONG[fault]
    arrays = dict(np.load(inputs_npz))
    spoil(arrays)
    np.savez(inputs_npz, **arrays)
    assert expected in refused(
        call(descriptor_onnx, inputs_npz, outputs_npz, *ONNX_ON_CPU), InvalidInputError, outputs_npz
    )


def save_objects(path: Path) -> None:
    np.savez(path, image=np.array([{}], object))


def save_damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)


def save_text_member(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image", b"no array")


def save_many(path: Path) -> None:
    arrays: Any = {f"x{index}": np.zeros(1) for index in range(65)}
    np.savez(path, **arrays)


def save_plain_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "cannot be read: No such file"),
    "empty": (lambda path: path.write_bytes(b""), "expected an .npz file"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-30]), "expected an .npz file"),
    "one array": (save_plain_array, "expected an .npz file"),
    "objects": (save_objects, "array image cannot be read: Object arrays cannot be loaded"),
    "damaged": (save_damaged, "array image cannot be read"),
    "no array": (save_text_member, "image is no array"),
    "too many": (save_many, "at most 64 arrays"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_an_inputs_file_that_is_not_one_is_refused(
    descriptor_onnx: Path, inputs_npz: Path, outputs_npz: Path, fault: str
) -> None:
    spoil, expected = BROKEN[fault]
    spoil(inputs_npz)
    text = refused(call(descriptor_onnx, inputs_npz, outputs_npz, *ONNX_ON_CPU), ConfigError, outputs_npz)
    assert "inputs.npz" in text
    assert expected in text


def test_an_inputs_file_that_would_unpack_too_large_is_refused(
    inputs_npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(inputs_npz, image=np.zeros(1_000_000))
    monkeypatch.setattr(npz_file, "NPZ_MAX_BYTES", 1_000_000)
    with pytest.raises(ConfigError, match=r"at most .* of 8000128"):
        read_npz(inputs_npz)


def test_outputs_that_cannot_be_written_are_refused_before_anything_runs(
    descriptor_onnx: Path, inputs_npz: Path, tmp_path: Path
) -> None:
    missing = tmp_path / "nowhere" / "outputs.npz"
    result = call(descriptor_onnx, inputs_npz, missing, *ONNX_ON_CPU)
    assert isinstance(result.exception, ConfigError)
    assert "does not exist" in str(result.exception)
    for occupied in (tmp_path, inputs_npz, descriptor_onnx):
        before = inputs_npz.read_bytes()
        result = call(descriptor_onnx, inputs_npz, occupied, *ONNX_ON_CPU)
        assert isinstance(result.exception, ConfigError)
        assert "expected a file to write" in str(result.exception)
        assert inputs_npz.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(
    descriptor_onnx: Path, inputs_npz: Path
) -> None:
    """Nobody, root included, makes files in /proc."""
    result = call(descriptor_onnx, inputs_npz, Path("/proc/outputs.npz"), *ONNX_ON_CPU)
    assert isinstance(result.exception, ConfigError)
    assert "the folder cannot be written" in str(result.exception)


def test_a_disk_that_fills_up_leaves_the_former_outputs(
    descriptor_onnx: Path, inputs_npz: Path, outputs_npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    outputs_npz.write_bytes(b"former")

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(npz_file, "write_atomically", full)
    result = call(descriptor_onnx, inputs_npz, outputs_npz, *ONNX_ON_CPU)
    assert isinstance(result.exception, C7Error)
    assert "No space left on device" in str(result.exception)
    assert outputs_npz.read_bytes() == b"former"


def test_a_runtime_that_is_built_out_is_refused(
    descriptor_onnx: Path, inputs_npz: Path, outputs_npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILD_ONNX_TRT_EP_RUNTIME", "OFF")
    result = call(descriptor_onnx, inputs_npz, outputs_npz, *ONNX_ON_CPU)
    assert "BUILD_ONNX_TRT_EP_RUNTIME=OFF" in refused(result, RuntimeNotAvailableError, outputs_npz)


@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1, max_size=20).filter(
            lambda name: not name.endswith(".npy")
        ),
        hnp.arrays(st.sampled_from(["float32", "float16", "int64", "bool"]), hnp.array_shapes(min_dims=0, max_dims=3)),
        max_size=4,
    )
)
def test_what_is_written_reads_back_whatever_the_names(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    write_npz(path, arrays)
    found = read_npz(path)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
