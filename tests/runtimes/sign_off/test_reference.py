"""The fp32 reference of a source: nothing of the engine's, and of a program in fp16 the same program in fp32."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.sign_off.reference import ReferenceUnavailableError, open_reference
from runtimes.source_model import SourceModel, read_source


def reference_of(path: Path) -> Any:
    return open_reference(read_source(path, suffix=path.suffix), threads=1)


# ONNX.


def test_an_onnx_source_is_its_own_reference_in_fp32(descriptor_onnx: Path) -> None:
    pytest.importorskip("onnxruntime")
    evaluation = pytest.importorskip("onnx.reference")

    reference = reference_of(descriptor_onnx)
    random = np.random.default_rng(3)
    inputs = {
        "image": random.normal(size=(2, 3, 8, 8)).astype(np.float32),
        "bias_by_image": random.normal(size=(2, 4)).astype(np.float32),
    }
    outputs = reference.run(inputs)
    assert list(outputs) == ["descriptor", "echo"]
    (expected,) = evaluation.ReferenceEvaluator(str(descriptor_onnx)).run(["descriptor"], inputs)
    np.testing.assert_allclose(outputs["descriptor"], expected, rtol=1e-4, atol=1e-5)
    assert reference.description.endswith("on the CPU, graph optimisations off, fp32")


def test_a_reference_widens_what_an_engine_in_fp16_was_given(descriptor_onnx: Path) -> None:
    pytest.importorskip("onnxruntime")
    inputs = {"image": np.ones((1, 3, 8, 8), np.float16), "bias_by_image": np.full((1, 4), 0.1, np.float16)}
    outputs = reference_of(descriptor_onnx).run(inputs)
    assert outputs["descriptor"].dtype == np.float32
    wide = {name: array.astype(np.float32) for name, array in inputs.items()}
    np.testing.assert_array_equal(outputs["descriptor"], reference_of(descriptor_onnx).run(wide)["descriptor"])


def test_the_record_says_where_an_onnx_source_computes_in_fp16_itself(save_onnx: Any) -> None:
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    path = save_onnx(
        "half",
        [
            helper.make_node("Cast", ["x"], ["narrow"], to=TensorProto.FLOAT16),
            helper.make_node("Add", ["narrow", "narrow"], ["sum"]),
            helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
        ],
        [("x", TensorProto.FLOAT, [1])],
        [("y", TensorProto.FLOAT, [1])],
    )
    reference = reference_of(path)
    assert reference.description.endswith("its own fp16 where the CPU has it, else fp32")
    assert reference.run({"x": np.array([0.1], np.float32)})["y"][0] == pytest.approx(0.2, rel=1e-3)


@pytest.mark.parametrize(("name", "says"), [("cut.onnx", "cannot open it"), ("model.plan", "no reference runs .plan")])
def test_what_cannot_be_opened_has_no_reference_and_says_why(tmp_path: Path, name: str, says: str) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ReferenceUnavailableError, match=says):
        open_reference(SourceModel(tmp_path / name, b"\x08nonsense", "0" * 64), threads=1)


def test_inputs_that_the_source_does_not_take_are_no_traceback(descriptor_onnx: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ReferenceUnavailableError, match="ONNX Runtime's CPU provider"):
        reference_of(descriptor_onnx).run({"image": np.ones((1, 3, 8, 8), np.float32)})


@pytest.mark.parametrize(("library", "name"), [("onnxruntime", "m.onnx"), ("torch", "m.pt2")])
def test_without_its_library_there_is_no_reference(
    library: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ReferenceUnavailableError, match="cannot be imported"):
        open_reference(SourceModel(tmp_path / name, b"", "0" * 64), threads=1)


# torch.export.


def module_in(dtype_name: str) -> Any:
    """Everything that names a dtype, written by hand for one dtype: the fp32 twin of what the fp16 export becomes."""
    import torch

    dtype = getattr(torch, dtype_name)

    class Everything(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(11)
            self.convolution = torch.nn.Conv1d(2, 3, 3, padding=1)
            self.norm = torch.nn.BatchNorm1d(3)
            self.norm.load_state_dict({"running_mean": torch.rand(3)}, strict=False)
            self.register_buffer("offset", torch.randn(3, 1))
            self.scale = torch.randn(3, 1).half().to(dtype)  # neither parameter nor buffer: a constant of the program

        def forward(self, signal: Any, index: Any) -> dict[str, Any]:
            features = self.norm(self.convolution(signal)) * self.scale + self.offset
            features = features + torch.tensor([[0.1], [0.2], [0.3]], dtype=torch.float16).to(dtype)
            steps = torch.arange(signal.shape[-1], dtype=dtype) / 10
            ones = torch.full((3, 1), 0.3, dtype=dtype) + torch.zeros(3, 1, dtype=dtype).exp()
            features = (features + steps).to(dtype) * ones
            features = torch.cond(
                features.sum() > 0,
                lambda t: t.to(dtype) * 3 + torch.ones(1, dtype=dtype),
                lambda t: t - torch.full((1,), 0.7, dtype=dtype),
                (features,),
            )
            return {
                "soft": features.softmax(-1, dtype=dtype),
                "total": features.sum(-1, dtype=dtype),
                "best": features.argmax(-1),
                "picked": features.index_select(-1, index),
                "positive": features > 0,
            }

    return Everything().eval().requires_grad_(False)


@pytest.mark.torch
def test_an_fp16_program_runs_in_fp32_as_the_same_module_written_by_hand_in_fp32(save_pt2: Any) -> None:
    """Constants, buffers, dtype arguments, a nested graph and asserted metadata: to the last bit."""
    torch = pytest.importorskip("torch")
    narrow = module_in("float16").half()
    length = torch.export.Dim("length", min=2, max=64)
    example = (torch.zeros(2, 2, 8, dtype=torch.half), torch.tensor([0, 3]))
    path = save_pt2("everything", narrow, example, {"signal": {2: length}, "index": {}})
    wide = module_in("float32")
    wide.load_state_dict({name: value.float() for name, value in narrow.state_dict().items()})
    wide.norm.num_batches_tracked = narrow.norm.num_batches_tracked

    reference = reference_of(path)
    random = np.random.default_rng(5)
    for count in (2, 16, 64):
        signal = random.normal(size=(2, 2, count)).astype(np.float16)
        index = np.array([0, count - 1])
        found = reference.run({"signal": signal, "index": index})
        with torch.inference_mode():
            expected = wide(torch.from_numpy(signal.astype(np.float32)), torch.from_numpy(index))
            rounded = narrow(torch.from_numpy(signal), torch.from_numpy(index))
        for name, tensor in expected.items():
            np.testing.assert_array_equal(found[name], tensor.numpy())
        assert found["soft"].dtype == np.float32
        assert not np.array_equal(found["soft"], rounded["soft"].float().numpy()), "fp16 itself would show a difference"
    assert reference.description.endswith("on the CPU, the exported program in fp32")


@pytest.mark.torch
def test_a_program_that_looks_at_the_bits_of_its_floats_has_no_reference(save_pt2: Any) -> None:
    torch = pytest.importorskip("torch")

    class Bits(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x: Any) -> Any:
            return x.view(torch.int16) & 0x3FF

    path = save_pt2("bits", Bits(), (torch.zeros(4, dtype=torch.half),))
    with pytest.raises(ReferenceUnavailableError, match="looks at the bits of fp16"):
        reference_of(path)


@pytest.mark.torch
def test_an_archive_that_is_cut_off_has_no_reference(descriptor_pt2: Path) -> None:
    source = read_source(descriptor_pt2, suffix=".pt2")
    cut = SourceModel(source.path, source.data[:-30], source.sha256)
    with pytest.raises(ReferenceUnavailableError, match="cut off"):
        open_reference(cut, threads=1)


@pytest.mark.torch
def test_inputs_that_a_program_does_not_take_are_no_traceback(descriptor_pt2: Path) -> None:
    inputs = {"image": np.ones((1, 3, 8, 8), np.float16), "bias_by_image": np.ones((9, 9), np.float16)}
    with pytest.raises(ReferenceUnavailableError, match="does not run in fp32"):
        reference_of(descriptor_pt2).run(inputs)
