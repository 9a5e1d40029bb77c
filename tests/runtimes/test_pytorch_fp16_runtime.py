"""Real fp16 from a `.pt2`: what the audit refuses, and what a program may do without touching anybody's arrays."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from messages import (
    DeviceContextError,
    DeviceFaultError,
    EngineBuildError,
    InferenceError,
    InvalidInputError,
    OutOfMemoryError,
    RuntimeNotAvailableError,
    TensorSpec,
    TransientInferenceError,
)
from runtimes.config import C7InferenceConfig
from runtimes.inference_runtime import BuildConfig, Precision
from runtimes.pytorch_errors import error_of_run
from runtimes.pytorch_fp16_runtime import PytorchFp16Runtime

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
Module: Any = torch.nn.Module
SavePt2 = Callable[..., Path]

FP16 = BuildConfig()
with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def runtime(tmp_path: Path) -> PytorchFp16Runtime:
    return PytorchFp16Runtime(C7InferenceConfig(engine_dir=tmp_path / "engines"))


def half(*shape: int) -> Any:
    return torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape).half()


def load(runtime: PytorchFp16Runtime, path: Path) -> Any:
    return runtime.deserialize_engine(runtime.compile_engine(path, FP16))


# What is refused.


class Plain(Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return x * 2


class WithSingleWeights(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        return self.linear(x.float()).half()


class WithSingleInside(Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return (x.float().exp() * 2).half()


class WithSingleInABranch(Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return torch.cond(x.sum() > 0, lambda x: x.float().sin().half(), lambda x: x.cos(), (x,))


class WithAutocast(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4).half()

    def forward(self, x: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.linear(x)


class WithSingleConstant(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.ones(4)

    def forward(self, x: Any) -> Any:
        return x + self.shift.half()


class WithMemory(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frames", torch.zeros(1, dtype=torch.half))

    def forward(self, x: Any) -> Any:
        self.frames.view(-1).add_(1)
        return x * self.frames


class WithMemoryAside(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frames", torch.zeros(4, dtype=torch.half))

    def forward(self, x: Any) -> Any:
        self.frames.copy_(x)
        return x * 2


class WithNestedOutputs(Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return {"a": x * 2, "b": (x, x + 1)}


class WithNoneOutput(Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return x * 2, None


REFUSED: dict[str, tuple[Any, str]] = {
    "single input": ((Plain(), torch.zeros(4)), "x yields float32"),
    "single weights": ((WithSingleWeights().eval(), half(2, 4)), r"linear\.weight is float32"),
    "single inside": ((WithSingleInside(), half(4)), r"to \(aten\.to\.dtype\) yields float32"),
    "single in a branch": ((WithSingleInABranch(), half(4)), r"sin \(aten\.sin\.default\) yields float32"),
    "autocast": ((WithAutocast(), half(2, 4)), "yields bfloat16"),
    "single constant": ((WithSingleConstant(), half(4)), "shift is float32"),
    "memory": ((WithMemory(), half(4)), r"writes its buffers \(frames\)"),
    "memory aside": ((WithMemoryAside(), half(4)), r"writes its buffers \(frames\)"),
    "training batch norm": (
        (torch.nn.BatchNorm2d(3).half().train(), half(2, 3, 4, 4)),
        r"batch_norm .*in training mode",
    ),
    "training dropout": ((torch.nn.Dropout(0.5).train(), half(4)), r"dropout \(.*\) is in training mode"),
    "nested outputs": ((WithNestedOutputs(), half(4)), "found a nested one"),
    "none output": ((WithNoneOutput(), half(4)), "expected tensors only"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_program_that_is_not_fp16_through_and_through_is_refused_by_node(
    runtime: PytorchFp16Runtime, save_pt2: SavePt2, tmp_path: Path, fault: str
) -> None:
    (module, example), what = REFUSED[fault]
    path = save_pt2(fault.replace(" ", "_"), module, (example,))
    with pytest.raises(EngineBuildError, match=what):
        runtime.compile_engine(path, FP16)
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize("precision", ["fp32", "int8", "mixed"])
def test_another_precision_is_refused_by_name(
    runtime: PytorchFp16Runtime, descriptor_pt2: Path, precision: Precision
) -> None:
    with pytest.raises(EngineBuildError, match=f"does precision fp16 only, got {precision}"):
        runtime.compile_engine(descriptor_pt2, BuildConfig(precision=precision))


@pytest.mark.parametrize("kept", [0.0001, 0.5, 0.95])
def test_a_program_that_is_cut_off_is_refused(
    runtime: PytorchFp16Runtime, descriptor_pt2: Path, tmp_path: Path, kept: float
) -> None:
    data = descriptor_pt2.read_bytes()
    path = tmp_path / "cut.pt2"
    path.write_bytes(data[: max(1, int(len(data) * kept))])
    with pytest.raises(EngineBuildError, match=r"cut\.pt2: not a torch\.export archive, or cut off"):
        runtime.compile_engine(path, FP16)


def test_an_archive_of_something_else_is_refused(runtime: PytorchFp16Runtime, tmp_path: Path) -> None:
    path = tmp_path / "arrays.pt2"
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(3))
    with pytest.raises(EngineBuildError, match=r"arrays\.pt2: torch .* cannot open it"):
        runtime.compile_engine(path, FP16)


def test_an_onnx_model_is_refused_saying_who_takes_it(runtime: PytorchFp16Runtime, tmp_path: Path) -> None:
    path = tmp_path / "vpr.onnx"
    path.write_bytes(b"x")
    with pytest.raises(EngineBuildError, match="onnx_trt_ep"):
        runtime.compile_engine(path, FP16)


def test_a_profile_beyond_what_the_export_allows_is_refused(runtime: PytorchFp16Runtime, descriptor_pt2: Path) -> None:
    profile = (("image", (1, 3, 8, 8), (2, 3, 8, 8), (5, 3, 8, 8)),)
    with pytest.raises(EngineBuildError, match=r"expected within float16\[1\.\.4, 3, 8, 8\]"):
        runtime.compile_engine(descriptor_pt2, BuildConfig(optimization_profiles=profile))


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(RuntimeNotAvailableError, match="install it with c7-inference's extra `torch`"):
        PytorchFp16Runtime(C7InferenceConfig())


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what a machine without a GPU does")
def test_a_cuda_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(RuntimeNotAvailableError, match="expected a CUDA device 0, found 0"):
        PytorchFp16Runtime(C7InferenceConfig(device="cuda"))


def test_the_thread_count_is_the_configured_one() -> None:
    before = torch.get_num_threads()
    try:
        PytorchFp16Runtime(C7InferenceConfig(threads=2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# What a program may be.


def test_the_engine_is_the_program_itself(runtime: PytorchFp16Runtime, descriptor_pt2: Path) -> None:
    entry = runtime.compile_engine(descriptor_pt2, FP16)
    assert entry.path.read_bytes() == descriptor_pt2.read_bytes()
    assert entry.engine_sha256 == entry.source_sha256
    assert entry.build_tool == f"torch {torch.__version__}"


class Attention(Module):  # type: ignore[misc]
    """Layer norm, attention, in-place activation, fp16 throughout; keypoints are indices."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(16)
        self.qkv = torch.nn.Linear(16, 48)
        self.activation = torch.nn.ReLU(inplace=True)
        self.dropout = torch.nn.Dropout(0.1)

    def forward(self, tokens: Any, index: Any) -> tuple[Any, Any]:
        q, k, v = self.qkv(self.norm(tokens)).chunk(3, dim=-1)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        picked = self.activation(self.dropout(attended))[index]
        return picked, picked.argmax(dim=-1)


def test_a_transformer_block_with_dynamic_tokens_gives_the_numbers_of_torch_called_directly(
    runtime: PytorchFp16Runtime, save_pt2: SavePt2
) -> None:
    torch.manual_seed(3)
    module = Attention().eval().half()
    tokens = torch.export.Dim("tokens", min=2, max=64)
    example = (half(8, 16), torch.tensor([1, 3]))
    path = save_pt2("attention", module, example, {"tokens": {0: tokens}, "index": None})
    handle = load(runtime, path)
    assert handle.entry.inputs == {"tokens": TensorSpec((-1, 16), "float16"), "index": TensorSpec((2,), "int64")}
    assert handle.entry.outputs == {"output_0": TensorSpec((2, 16), "float16"), "output_1": TensorSpec((2,), "int64")}
    direct = torch.export.load(io.BytesIO(path.read_bytes())).module()
    for count in (2, 8, 64):
        given = torch.randn(count, 16).half(), torch.tensor([0, count - 1])
        expected = direct(*given)
        found = runtime.infer(handle, {"tokens": given[0].numpy(), "index": given[1].numpy()})
        for name, tensor in zip(("output_0", "output_1"), expected, strict=True):
            np.testing.assert_array_equal(np.asarray(found[name]), tensor.detach().numpy())
    with pytest.raises(InvalidInputError, match=r"tokens: expected float16\[2\.\.64, 16\], found float16\[65, 16\]"):
        runtime.infer(handle, {"tokens": half(65, 16).numpy(), "index": np.array([0, 1])})


def test_keyword_and_nested_inputs_have_the_names_of_the_export(runtime: PytorchFp16Runtime, tmp_path: Path) -> None:
    class Nested(Module):  # type: ignore[misc]
        def forward(self, views: Any, *, scale: Any) -> Any:
            return views["left"] - views["right"] * scale

    path = tmp_path / "nested.pt2"
    program = torch.export.export(Nested(), ({"left": half(4), "right": half(4)},), {"scale": half(1)})
    torch.export.save(program, path)
    handle = load(runtime, path)
    assert list(handle.entry.inputs) == ["views_left", "views_right", "scale"]
    given = {
        "views_left": np.full(4, 3, np.float16),
        "views_right": np.full(4, 2, np.float16),
        "scale": np.full(1, 0.5, np.float16),
    }
    np.testing.assert_array_equal(np.asarray(runtime.infer(handle, given)["output_0"]), np.full(4, 2, np.float16))


def test_sizes_that_must_agree_never_reach_the_engine(runtime: PytorchFp16Runtime, descriptor_pt2: Path) -> None:
    handle = load(runtime, descriptor_pt2)
    image, bias = np.zeros((2, 3, 8, 8), np.float16), np.zeros((3, 4), np.float16)
    with pytest.raises(InvalidInputError, match=r"bias_by_image axis 0 .*expected 2 as in image axis 0, found 3"):
        runtime.infer(handle, {"image": image, "bias_by_image": bias})


def test_sizes_that_only_the_program_relates_are_invalid_input_too(
    runtime: PytorchFp16Runtime, save_pt2: SavePt2
) -> None:
    class Doubled(Module):  # type: ignore[misc]
        def forward(self, whole: Any, part: Any) -> Any:
            return whole - torch.cat([part, part])

    size = torch.export.Dim("size", min=2, max=8)
    path = save_pt2("doubled", Doubled(), (half(8), half(4)), {"whole": {0: 2 * size}, "part": {0: size}})
    handle = load(runtime, path)
    assert runtime.infer(handle, {"whole": np.zeros(6, np.float16), "part": np.zeros(3, np.float16)})
    with pytest.raises(InvalidInputError, match="do not fit the export"):
        runtime.infer(handle, {"whole": np.zeros(7, np.float16), "part": np.zeros(3, np.float16)})


# Whose memory it is.


class WritesItsInput(Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        x.add_(1)
        return torch.relu_(torch.nn.functional.dropout(x, 0.5, training=False))


class ReturnsViews(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", half(3))

    def forward(self, x: Any) -> Any:
        y = x.relu()
        return {"x": x, "part": x[:1], "y": y, "flat": y.view(-1), "table": self.table}


def test_a_program_that_writes_its_input_writes_a_copy(runtime: PytorchFp16Runtime, save_pt2: SavePt2) -> None:
    handle = load(runtime, save_pt2("writes", WritesItsInput(), (half(4),)))
    given = np.array([-3, -1, 0, 2], np.float16)
    for _ in range(2):
        found = runtime.infer(handle, {"x": given})["output_0"]
        np.testing.assert_array_equal(np.asarray(found), np.array([0, 0, 1, 3], np.float16))
    np.testing.assert_array_equal(given, np.array([-3, -1, 0, 2], np.float16))


def test_views_of_inputs_outputs_and_weights_come_out_as_arrays_of_their_own(
    runtime: PytorchFp16Runtime, save_pt2: SavePt2
) -> None:
    handle = load(runtime, save_pt2("views", ReturnsViews(), (half(2, 3),)))
    given = {"x": np.ones((2, 3), np.float16)}
    first = {name: np.asarray(tensor) for name, tensor in runtime.infer(handle, given).items()}
    assert list(first) == ["x", "part", "y", "flat", "table"]
    kept = {name: array.copy() for name, array in first.items()}
    for name, array in first.items():
        others = [other for key, other in first.items() if key != name]
        assert not any(np.shares_memory(array, other) for other in (*others, given["x"]))
        array.fill(9)
    for name, tensor in runtime.infer(handle, given).items():
        np.testing.assert_array_equal(np.asarray(tensor), kept[name])


# When a run fails.


def test_a_node_that_fails_is_an_inference_error_and_the_engine_answers_again(
    runtime: PytorchFp16Runtime, save_pt2: SavePt2
) -> None:
    class Picks(Module):  # type: ignore[misc]
        def forward(self, x: Any, index: Any) -> Any:
            return x[index]

    handle = load(runtime, save_pt2("picks", Picks(), (half(5), torch.tensor([1, 2]))))
    values = np.arange(5, dtype=np.float16)
    with pytest.raises(InferenceError, match=r"picks: IndexError: .*out of bounds") as failure:
        runtime.infer(handle, {"x": values, "index": np.array([1, 77])})
    assert not isinstance(failure.value, InvalidInputError)
    assert failure.value.__context__ is None, "a kept error must not keep the failed tensors"
    np.testing.assert_array_equal(
        np.asarray(runtime.infer(handle, {"x": values, "index": np.array([1, 4])})["output_0"]), [1, 4]
    )


def test_memory_that_runs_out_is_an_out_of_memory_error(runtime: PytorchFp16Runtime, save_pt2: SavePt2) -> None:
    class Large(Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            # 256 TiB: more than a process can address, so that no over-committing kernel grants it.
            return torch.ones(2**47, dtype=torch.half) * x

    handle = load(runtime, save_pt2("large", Large(), (half(1),)))
    with pytest.raises(OutOfMemoryError, match="large: "):
        runtime.infer(handle, {"x": np.ones(1, np.float16)})


def test_an_error_of_a_run_is_sorted_by_class_and_text() -> None:
    class AcceleratorError(RuntimeError):
        def __init__(self, text: str, error_code: int = 716) -> None:
            super().__init__(text)
            self.error_code = error_code

    cases: list[tuple[BaseException, type[Exception], str]] = [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), OutOfMemoryError, "2 GiB"),
        (AcceleratorError("CUDA error: misaligned address"), DeviceFaultError, "cudaErrorMisalignedAddress (716)"),
        (AssertionError("Guard failed: x.size()[0] <= 4"), InvalidInputError, "do not fit the export"),
        (RuntimeError("Expected input at *args[0].shape[0] to be <= 4"), InvalidInputError, "do not fit the export"),
        (MemoryError(), OutOfMemoryError, "out of memory"),
        (AcceleratorError("CUDA error: invalid argument", 1), InferenceError, "AcceleratorError 1: CUDA error"),
        (AcceleratorError("CUDA error: out of memory", 2), OutOfMemoryError, "cudaErrorMemoryAllocation (2)"),
        (AcceleratorError("CUDA error: of a torch to come", 700), DeviceFaultError, "cudaErrorIllegalAddress (700)"),
        (RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors"), DeviceFaultError, "(710)"),
        (RuntimeError("CUDA driver error: unspecified launch failure"), DeviceFaultError, "(719)"),
        (RuntimeError("CUDA error: too many resources requested for launch"), TransientInferenceError, "(701)"),
        (RuntimeError("CUDA error: context is destroyed"), DeviceContextError, "(709)"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), InferenceError, "CUDNN_STATUS"),
    ]
    for error, kind, text in cases:
        sorted_error = error_of_run("vpr", error)
        assert type(sorted_error) is kind
        assert text in str(sorted_error)


def test_torch_tensors_on_the_host_are_refused_saying_what_to_give(
    runtime: PytorchFp16Runtime, descriptor_pt2: Path
) -> None:
    handle = load(runtime, descriptor_pt2)
    inputs = {"image": torch.zeros(1, 3, 8, 8).half(), "bias_by_image": np.zeros((1, 4), np.float16)}
    with pytest.raises(InvalidInputError, match=r"as torch\.Tensor; give a NumPy array"):
        runtime.infer(handle, inputs)


# CUDA.


@pytest.mark.gpu
@with_gpu
def test_device_tensors_in_device_tensors_out(descriptor_pt2: Path, tmp_path: Path) -> None:
    cuda = PytorchFp16Runtime(C7InferenceConfig(device="cuda", engine_dir=tmp_path / "cuda"))
    cpu = PytorchFp16Runtime(C7InferenceConfig(engine_dir=tmp_path / "cpu"))
    random = np.random.default_rng(2)
    given = {
        "image": random.normal(size=(3, 3, 8, 8)).astype(np.float16),
        "bias_by_image": random.normal(size=(3, 4)).astype(np.float16),
    }
    on_cpu, on_cuda = load(cpu, descriptor_pt2), load(cuda, descriptor_pt2)
    expected = np.asarray(cpu.infer(on_cpu, given)["descriptor"])
    np.testing.assert_allclose(np.asarray(cuda.infer(on_cuda, given)["descriptor"]), expected, atol=0.01)
    resident = {name: torch.from_numpy(array).cuda() for name, array in given.items()}
    found: Any = cuda.infer(on_cuda, resident)
    assert found["descriptor"].is_cuda
    assert found["echo"].data_ptr() != resident["image"].data_ptr()
    np.testing.assert_allclose(found["descriptor"].cpu().numpy(), expected, atol=0.01)
    mixed: Any = {**resident, "image": given["image"]}
    with pytest.raises(InvalidInputError, match="expected all inputs on cuda:0 or all as NumPy arrays, found image"):
        cuda.infer(on_cuda, mixed)
