"""ONNX Runtime on the provider that was asked for and no other, with the real library."""

from __future__ import annotations

import gzip
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from messages import (
    ConfigError,
    DeviceFaultError,
    EngineBuildError,
    InferenceError,
    InvalidInputError,
    OutOfMemoryError,
    RuntimeNotAvailableError,
    TensorSpec,
    TransientInferenceError,
)
from runtimes.config import C7InferenceConfig, Provider
from runtimes.host import detect_gpu
from runtimes.inference_runtime import BuildConfig, Precision
from runtimes.onnx_model import audit_onnx, refuse_partial_engine
from runtimes.onnx_session import _PROBE, PROVIDER_NAMES, error_of_run, open_session, refuse_environment
from runtimes.onnx_trt_ep_runtime import OnnxTrtEpRuntime, tensorrt_options
from runtimes.source_model import read_source

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
helper, TensorProto = onnx.helper, onnx.TensorProto

FP32 = BuildConfig(precision="fp32")
without_gpu = pytest.mark.skipif(detect_gpu() is not None, reason="asks for what a machine without a GPU does")
with_gpu = pytest.mark.skipif(detect_gpu() is None, reason="needs a CUDA device")


def runtime_on(provider: Provider | None) -> OnnxTrtEpRuntime:
    return OnnxTrtEpRuntime(C7InferenceConfig(runtime="onnx_trt_ep", provider=provider))


@pytest.fixture
def cpu() -> OnnxTrtEpRuntime:
    return runtime_on("cpu")


# The provider.


@without_gpu
@pytest.mark.parametrize("provider", ["tensorrt", "cuda"])
def test_a_provider_that_cannot_run_here_is_refused_saying_what_is_missing(
    provider: Provider, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in __import__("os").environ if name.startswith("ORT_TENSORRT_")]:
        monkeypatch.delenv(name)
    with pytest.raises(RuntimeNotAvailableError) as refusal:
        runtime_on(provider)
    assert f"onnx_trt_ep[{provider}]" in str(refusal.value)
    in_this_build = PROVIDER_NAMES[provider] in ort.get_available_providers()
    assert ("cannot open shared object file" if in_this_build else "made without it") in str(refusal.value)
    assert 'provider = "cpu"' in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_no_provider_is_taken_by_default() -> None:
    with pytest.raises(ConfigError, match="tensorrt, cuda or cpu"):
        runtime_on(None)


def test_a_cpu_provider_on_a_cuda_device_is_a_contradiction() -> None:
    with pytest.raises(ConfigError, match="contradict"):
        OnnxTrtEpRuntime(C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu", device="cuda"))


def test_variables_that_change_what_tensorrt_builds_are_refused_by_name() -> None:
    environment = {"ORT_TENSORRT_INT8_ENABLE": "1", "ORT_TENSORRT_FP16_ENABLE": "0", "PATH": ""}
    with pytest.raises(ConfigError, match=r"^ORT_TENSORRT_FP16_ENABLE, ORT_TENSORRT_INT8_ENABLE: "):
        refuse_environment("tensorrt", environment)
    refuse_environment("cpu", environment)


def test_without_onnx_runtime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeNotAvailableError, match="install it with c7-inference's extra `onnx`"):
        runtime_on("cpu")


def test_a_session_that_silently_got_another_provider_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class CpuSession:
        def __init__(self, *_: object, **__: object) -> None: ...
        def disable_fallback(self) -> None: ...
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(ort, "InferenceSession", CpuSession)
    with pytest.raises(RuntimeNotAvailableError, match="the session got CPUExecutionProvider"):
        open_session(b"", "cuda", threads=1, device_index=0)


def test_the_probe_is_one_addition() -> None:
    model = onnx.load_model_from_string(_PROBE)
    onnx.checker.check_model(model, full_check=True)
    assert [(node.op_type, list(node.input), list(node.output)) for node in model.graph.node] == [
        ("Add", ["x", "x"], ["y"])
    ]


# Compiling.


def test_the_engine_is_the_model_as_optimised_for_this_host(cpu: OnnxTrtEpRuntime, descriptor_onnx: Path) -> None:
    entry = cpu.compile_engine(descriptor_onnx, FP32)
    operations = [node.op_type for node in onnx.load(entry.path).graph.node]
    assert "Conv" in operations
    assert "Relu" not in operations, "fused into the convolution"
    assert entry.build_tool == f"onnxruntime {ort.__version__}"
    assert entry.host.runtime_version == ort.__version__
    assert entry.outputs == {
        "descriptor": TensorSpec((-1, 4), "float32"),
        "echo": TensorSpec((-1, 3, 8, 8), "float32"),
    }


@pytest.mark.parametrize("precision", ["fp16", "int8", "mixed"])
def test_a_precision_that_the_cpu_provider_cannot_do_is_refused_by_name(
    cpu: OnnxTrtEpRuntime, descriptor_onnx: Path, precision: Precision
) -> None:
    with pytest.raises(EngineBuildError, match=f"does precision fp32, got {precision}"):
        cpu.compile_engine(descriptor_onnx, BuildConfig(precision=precision))


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_model_that_is_cut_off_is_refused(cpu: OnnxTrtEpRuntime, descriptor_onnx: Path, kept: float) -> None:
    data = descriptor_onnx.read_bytes()
    descriptor_onnx.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(EngineBuildError, match=r"descriptor\.onnx: not an ONNX model, or cut off"):
        cpu.compile_engine(descriptor_onnx, FP32)
    assert not (descriptor_onnx.parent / "engines").exists()


@pytest.mark.parametrize("data", [b"a letter to my aunt\n", gzip.compress(b"x" * 100), b"\x08\x08"])
def test_a_file_that_is_no_model_is_refused(cpu: OnnxTrtEpRuntime, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(EngineBuildError, match=r"model\.onnx: (not an|expected an) ONNX model"):
        cpu.compile_engine(path, FP32)


def test_an_unknown_operator_is_refused_by_name(cpu: OnnxTrtEpRuntime, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Levitate", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    with pytest.raises(EngineBuildError, match="Levitate"):
        cpu.compile_engine(path, FP32)


def test_a_source_of_another_runtime_is_refused_saying_which_takes_it(cpu: OnnxTrtEpRuntime, tmp_path: Path) -> None:
    path = tmp_path / "vpr.pt2"
    path.write_bytes(b"x")
    with pytest.raises(EngineBuildError, match="pytorch_fp16"):
        cpu.compile_engine(path, FP32)


def test_weights_outside_the_file_are_refused_even_where_onnx_runtime_would_find_them(
    cpu: OnnxTrtEpRuntime, descriptor_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(descriptor_onnx)
    onnx.save(model, descriptor_onnx, save_as_external_data=True, location="weights.bin", size_threshold=0)
    monkeypatch.chdir(descriptor_onnx.parent)
    if not ort.__version__.startswith("1.20."):  # which looks for them nowhere
        ort.InferenceSession(descriptor_onnx.read_bytes(), providers=["CPUExecutionProvider"])
    with pytest.raises(EngineBuildError, match=r"1 in other files \(weight, \.\.\.\)"):
        cpu.compile_engine(descriptor_onnx, FP32)


def test_without_the_onnx_package_the_extra_is_named(
    cpu: OnnxTrtEpRuntime, descriptor_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EngineBuildError, match="install c7-inference with its extra `onnx`"):
        cpu.compile_engine(descriptor_onnx, FP32)


def test_an_input_without_a_rank_is_refused(cpu: OnnxTrtEpRuntime, save_onnx: Callable[..., Path]) -> None:
    path = save_onnx(
        "free",
        [helper.make_node("Relu", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, None)],
        [("y", TensorProto.FLOAT, None)],
        valid=False,
    )
    with pytest.raises(EngineBuildError, match="x has no rank"):
        cpu.compile_engine(path, FP32)


@pytest.mark.parametrize(("kind", "found"), [(TensorProto.STRING, "STRING"), (TensorProto.BFLOAT16, "BFLOAT16")])
def test_an_input_that_numpy_has_no_type_for_is_refused(
    cpu: OnnxTrtEpRuntime, save_onnx: Callable[..., Path], kind: int, found: str
) -> None:
    path = save_onnx("odd", [helper.make_node("Identity", ["x"], ["y"])], [("x", kind, [1])], [("y", kind, [1])])
    with pytest.raises(EngineBuildError, match=f"x is {found}"):
        cpu.compile_engine(path, FP32)


def half_precision_nodes() -> list[Any]:
    return [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["half", "weight"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
    ]


def save_half(save_onnx: Callable[..., Path], kind: int, nodes: list[Any]) -> Path:
    weight = {"weight": np.ones((3, 3), np.float16)}
    return save_onnx("half", nodes, [("x", kind, [2, 3])], [("y", kind, [2, 3])], weight)


def test_a_model_that_computes_in_fp16_is_not_fp32(cpu: OnnxTrtEpRuntime, save_onnx: Callable[..., Path]) -> None:
    path = save_half(save_onnx, TensorProto.FLOAT, half_precision_nodes())
    with pytest.raises(EngineBuildError, match="expected fp32 throughout, found half is FLOAT16; product is FLOAT16"):
        cpu.compile_engine(path, FP32)


def test_a_model_that_computes_in_fp32_inside_is_not_fp16(save_onnx: Callable[..., Path]) -> None:
    whole = save_half(save_onnx, TensorProto.FLOAT16, [helper.make_node("MatMul", ["x", "weight"], ["y"])])
    assert audit_onnx(read_source(whole, suffix=".onnx"), "fp16").inputs == {"x": TensorSpec((2, 3), "float16")}
    nodes = [
        helper.make_node("Cast", ["x"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["single"], ["y"], to=TensorProto.FLOAT16),
    ]
    split = save_half(save_onnx, TensorProto.FLOAT16, nodes)
    with pytest.raises(EngineBuildError, match="expected fp16 throughout, found single is FLOAT"):
        audit_onnx(read_source(split, suffix=".onnx"), "fp16")
    assert audit_onnx(read_source(split, suffix=".onnx"), "mixed").inputs


def test_a_quantised_model_is_not_fp32(cpu: OnnxTrtEpRuntime, save_onnx: Callable[..., Path]) -> None:
    path = save_onnx(
        "quantised",
        [
            helper.make_node("QuantizeLinear", ["x", "scale"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, [4])],
        [("y", TensorProto.FLOAT, [4])],
        {"scale": np.array(0.1, np.float32)},
    )
    with pytest.raises(EngineBuildError, match=r"int8 operations \(DequantizeLinear, QuantizeLinear\)"):
        cpu.compile_engine(path, FP32)


# Running.


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_a_known_topology_gives_the_numbers_of_onnx_runtime_called_directly(
    cpu: OnnxTrtEpRuntime, light_onnx: Callable[[str], Path], name: str
) -> None:
    path = light_onnx(name)
    direct = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = direct.get_inputs()[0]
    image = np.random.default_rng(1).normal(size=given.shape).astype(np.float32)
    expected = direct.run(None, {given.name: image})[0]
    handle = cpu.deserialize_engine(cpu.compile_engine(path, FP32))
    (found,) = cpu.infer(handle, {given.name: image}).values()
    assert np.ptp(expected) > 1e-4, "a constant output would prove nothing"
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-3, atol=1e-6)


def test_weights_that_are_listed_as_inputs_are_constants_all_the_same(
    cpu: OnnxTrtEpRuntime, save_onnx: Callable[..., Path]
) -> None:
    """The form of IR version 3: a `Reshape` whose shape ONNX Runtime folds away."""
    path = save_onnx(
        "old",
        [helper.make_node("Reshape", ["x", "shape"], ["flat"]), helper.make_node("Relu", ["flat"], ["y"])],
        [("x", TensorProto.FLOAT, [2, 3]), ("shape", TensorProto.INT64, [1])],
        [("y", TensorProto.FLOAT, [6])],
        {"shape": np.array([6])},
    )
    entry = cpu.compile_engine(path, FP32)
    assert entry.inputs == {"x": TensorSpec((2, 3), "float32")}
    found = cpu.infer(cpu.deserialize_engine(entry), {"x": np.ones((2, 3), np.float32)})
    np.testing.assert_array_equal(np.asarray(found["y"]), np.ones(6))


def test_inputs_whose_shared_dimension_differs_never_reach_the_engine(
    cpu: OnnxTrtEpRuntime, descriptor_onnx: Path
) -> None:
    handle = cpu.deserialize_engine(cpu.compile_engine(descriptor_onnx, FP32))
    image, bias = np.zeros((2, 3, 8, 8), np.float32), np.zeros((3, 4), np.float32)
    with pytest.raises(InvalidInputError, match=r"bias_by_image axis 0 \(n\): expected 2 as in image axis 0, found 3"):
        cpu.infer(handle, {"image": image, "bias_by_image": bias})
    assert cpu.infer(handle, {"image": image, "bias_by_image": bias[:2]})


def test_a_node_that_fails_is_an_inference_error_and_nothing_is_printed(
    cpu: OnnxTrtEpRuntime, save_onnx: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    path = save_onnx(
        "gather",
        [helper.make_node("Gather", ["table", "index"], ["y"])],
        [("index", TensorProto.INT64, ["n"])],
        [("y", TensorProto.FLOAT, ["n"])],
        {"table": np.arange(6, dtype=np.float32)},
    )
    handle = cpu.deserialize_engine(cpu.compile_engine(path, FP32))
    with pytest.raises(InferenceError, match=r"gather: InvalidArgument: .*out of data bounds") as failure:
        cpu.infer(handle, {"index": np.array([99])})
    assert not isinstance(failure.value, InvalidInputError)
    assert failure.value.__context__ is None, "a kept error must not keep the failed tensors"
    np.testing.assert_array_equal(np.asarray(cpu.infer(handle, {"index": np.array([3])})["y"]), [3.0])
    assert capfd.readouterr() == ("", "")


def test_memory_that_runs_out_is_an_out_of_memory_error(cpu: OnnxTrtEpRuntime, save_onnx: Callable[..., Path]) -> None:
    path = save_onnx(
        "large",
        [helper.make_node("ConstantOfShape", ["shape"], ["y"])],
        [("shape", TensorProto.INT64, [1])],
        [("y", TensorProto.FLOAT, ["n"])],
    )
    handle = cpu.deserialize_engine(cpu.compile_engine(path, FP32))
    # 256 TiB: more than a process can address, so that no over-committing kernel grants it.
    with pytest.raises(OutOfMemoryError, match=r"large: .*281474976710656"):
        cpu.infer(handle, {"shape": np.array([2**46])})
    assert np.asarray(cpu.infer(handle, {"shape": np.array([2])})["y"]).shape == (2,)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_what_a_run_had_got_before_memory_ran_out_is_given_back_by_the_next_run(
    cpu: OnnxTrtEpRuntime, save_onnx: Callable[..., Path]
) -> None:
    """A first operation gets `first` floats, and the next one, which waits for its sum, asks for `second`."""
    path = save_onnx(
        "two_steps",
        [
            helper.make_node("ConstantOfShape", ["first"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["sum"], ["none"], to=TensorProto.INT64),
            helper.make_node("Add", ["second", "none"], ["shape"]),
            helper.make_node("ConstantOfShape", ["shape"], ["y"]),
        ],
        [("first", TensorProto.INT64, [1]), ("second", TensorProto.INT64, [1])],
        [("y", TensorProto.FLOAT, ["n"])],
    )
    handle = cpu.deserialize_engine(cpu.compile_engine(path, FP32))
    small = {"first": np.array([1]), "second": np.array([1])}
    cpu.infer(handle, small)
    before = resident_bytes()
    with pytest.raises(OutOfMemoryError):
        cpu.infer(handle, {"first": np.array([2**25]), "second": np.array([2**46])})
    assert resident_bytes() - before > 100 * 1024**2, "128 MiB that the arena keeps"
    cpu.infer(handle, small)
    assert resident_bytes() - before < 28 * 1024**2
    assert not handle.ran_out_of_memory


IN_A_SMALL_PROCESS = """
import resource, sys
from pathlib import Path
from messages import OutOfMemoryError
from runtimes.config import C7InferenceConfig
from runtimes.onnx_trt_ep_runtime import OnnxTrtEpRuntime
from runtimes.store.engine_artifact import read_entry
runtime = OnnxTrtEpRuntime(C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"))
entry = read_entry(Path(sys.argv[1]))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 1024**2, resource.RLIM_INFINITY))
try:
    runtime.deserialize_engine(entry)
except OutOfMemoryError as error:
    print("out of memory:", error)
"""


@pytest.mark.parametrize("room_mb", [8, 96, 150])
def test_a_load_that_runs_out_of_memory_says_so(
    cpu: OnnxTrtEpRuntime, save_onnx: Callable[..., Path], room_mb: int
) -> None:
    """8 MiB do not hold the file of 64 MiB, the others not what ONNX Runtime makes of it."""
    weight = {"weight": np.random.default_rng(1).random(16 * 1024**2, np.float32)}
    path = save_onnx(
        "wide",
        [helper.make_node("Add", ["x", "weight"], ["y"])],
        [("x", TensorProto.FLOAT, [1])],
        [("y", TensorProto.FLOAT, [16 * 1024**2])],
        weight,
    )
    entry = cpu.compile_engine(path, FP32)
    command = [sys.executable, "-c", IN_A_SMALL_PROCESS, str(entry.path), str(room_mb)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"out of memory: {entry.path}: "), done.stdout + done.stderr


def test_memory_that_runs_out_in_a_compilation_is_no_fault_of_the_model(
    cpu: OnnxTrtEpRuntime, descriptor_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("Exception during loading: std::bad_alloc")

    monkeypatch.setattr(ort, "InferenceSession", fail)
    with pytest.raises(OutOfMemoryError, match=r"descriptor\.onnx: "):
        cpu.compile_engine(descriptor_onnx, FP32)


def test_a_device_that_fails_in_a_load_is_a_device_fault(
    cpu: OnnxTrtEpRuntime, descriptor_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = cpu.compile_engine(descriptor_onnx, FP32)

    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("CUDA failure 719: unspecified launch failure ; GPU=0 ; hostname=c7")

    monkeypatch.setattr(ort, "InferenceSession", fail)
    with pytest.raises(DeviceFaultError, match=rf"{entry.path.name}: .*cudaErrorLaunchFailure") as failure:
        cpu.deserialize_engine(entry)
    assert failure.value.__context__ is None, "a kept error must not keep the engine's file"


def test_an_error_of_a_run_is_sorted_by_class_and_text() -> None:
    state = ort.capi.onnxruntime_pybind11_state
    cases: list[tuple[Exception, type[Exception]]] = [
        (state.InvalidArgument("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Invalid rank"), InvalidInputError),
        (state.InvalidArgument("Non-zero status code returned while running Gather node"), InferenceError),
        (state.Fail("BFCArena::AllocateRawInternal Failed to allocate memory"), OutOfMemoryError),
        (state.RuntimeException("CUDA failure 2: out of memory"), OutOfMemoryError),
        (state.EPFail("CUDA failure 716: misaligned address"), DeviceFaultError),
        (state.Fail("CUDA failure 700: an illegal memory access was encountered ; GPU=0"), DeviceFaultError),
        (state.Fail("TensorRT EP failed: Error Code 1: Cuda Runtime (unspecified launch failure)"), DeviceFaultError),
        (state.Fail("CUDA failure 701: too many resources requested for launch"), TransientInferenceError),
        (state.Fail("x" * 1000 + " CUDA failure 710: device-side assert triggered"), DeviceFaultError),
        (state.Fail("CUDA failure 1: invalid argument"), InferenceError),
        (state.InvalidArgument("CUDA failure 700: an illegal memory access was encountered"), DeviceFaultError),
        (MemoryError(), OutOfMemoryError),
    ]
    for error, kind in cases:
        assert type(error_of_run("vpr", error)) is kind


# TensorRT and CUDA: what can be told without them, and what cannot.


def test_the_options_of_a_tensorrt_build_say_everything() -> None:
    config = BuildConfig(
        precision="mixed",
        workspace_mb=256,
        optimization_profiles=(
            ("image", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)),
            ("bias", (1, 4), (2, 4), (4, 4)),
        ),
    )
    options = tensorrt_options(config, Path("engine.onnx"))
    assert options["trt_profile_min_shapes"] == "image:1x3x8x8,bias:1x4"
    assert options["trt_profile_opt_shapes"] == "image:2x3x8x8,bias:2x4"
    assert options["trt_profile_max_shapes"] == "image:4x3x8x8,bias:4x4"
    assert options["trt_max_workspace_size"] == str(256 * 1024 * 1024)
    assert options["trt_ep_context_embed_mode"] == "1"


def test_an_engine_that_left_operations_outside_is_refused() -> None:
    def context(*operations: str) -> bytes:
        nodes = [helper.make_node(operation, ["x"], ["y"], domain="com.microsoft") for operation in operations]
        data: bytes = helper.make_model(helper.make_graph(nodes, "g", [], [])).SerializeToString()
        return data

    refuse_partial_engine("vpr", context("EPContext"))
    with pytest.raises(EngineBuildError, match="found outside: NonMaxSuppression"):
        refuse_partial_engine("vpr", context("EPContext", "NonMaxSuppression"))


@pytest.mark.gpu
@with_gpu
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_gpu_provider_agrees_with_the_cpu(provider: Provider, cpu: OnnxTrtEpRuntime, descriptor_onnx: Path) -> None:
    profile = (("image", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)), ("bias_by_image", (1, 4), (2, 4), (4, 4)))
    config = BuildConfig(precision="mixed", optimization_profiles=profile)
    random = np.random.default_rng(5)
    inputs = {
        "image": random.normal(size=(3, 3, 8, 8)).astype(np.float32),
        "bias_by_image": random.normal(size=(3, 4)).astype(np.float32),
    }
    gpu = runtime_on(provider)
    found = gpu.infer(gpu.deserialize_engine(gpu.compile_engine(descriptor_onnx, config)), inputs)
    expected = cpu.infer(cpu.deserialize_engine(cpu.compile_engine(descriptor_onnx, FP32)), inputs)
    np.testing.assert_allclose(np.asarray(found["descriptor"]), np.asarray(expected["descriptor"]), atol=0.02)
