"""The runtime tensorrt builds, loads and runs: what it promises beyond the contract of every runtime."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from messages import (
    EngineBuildError,
    EngineDeserializeError,
    EngineStoreError,
    InvalidInputError,
    OutOfMemoryError,
    RuntimeNotAvailableError,
    Tensor,
    TensorSpec,
)
from runtimes.config import C7InferenceConfig, TensorrtSection
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry
from runtimes.tensorrt.inference.device_tensors import DeviceTensor
from runtimes.tensorrt_runtime import TensorrtRuntime
from tests.runtimes.tensorrt.engines import to_device
from tests.runtimes.tensorrt.runtimes import FP16, MakeRuntime, arrays, rewritten

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device
    from tests.doubles.tensorrt.core import Core


# Building.


def test_an_engine_says_how_it_was_built_and_on_what(entry: EngineCacheEntry) -> None:
    assert entry.runtime_label == "tensorrt"
    assert entry.path.name == "descriptor__sm0_jp0_trt10.3_fp16.engine"
    assert entry.host.tensorrt == entry.host.runtime_version == "10.3.0"
    assert entry.build is not None
    assert (entry.build.builder, entry.build.flags) == ("api", ("FP16",))
    assert entry.build.activation_bytes == (entry.build.activation_bytes[0],)
    assert entry.build.layer_precisions["fp16"] > 0


def test_another_optimisation_level_is_in_the_engines_record(make_runtime: MakeRuntime, descriptor_onnx: Path) -> None:
    entry = make_runtime(optimization_level=5).compile_engine(descriptor_onnx, FP16)
    assert entry.build is not None
    assert entry.build.optimization_level == 5


def test_fp32_belongs_to_the_cpu(make_runtime: MakeRuntime, descriptor_onnx: Path) -> None:
    with pytest.raises(EngineBuildError, match="tensorrt does precision fp16, int8 or mixed, got fp32"):
        make_runtime().compile_engine(descriptor_onnx, msgspec.structs.replace(FP16, precision="fp32"))


def test_a_dynamic_input_without_a_range_is_refused_and_named(make_runtime: MakeRuntime, descriptor_onnx: Path) -> None:
    with pytest.raises(EngineBuildError, match=r"no profile for image .*bias_by_image"):
        make_runtime().compile_engine(descriptor_onnx, BuildConfig(precision="fp16"))


def test_graphs_that_do_not_fit_the_model_are_refused_before_anything_is_built(
    make_runtime: MakeRuntime, descriptor_onnx: Path, core: Core
) -> None:
    runtime = make_runtime(cuda_graphs={"descriptor": ({"image": (9, 3, 8, 8), "bias_by_image": (9, 4)},)})
    core.calls.clear()
    with pytest.raises(EngineBuildError, match=r"cuda_graphs gives input image the shape \[9, 3, 8, 8\], expected"):
        runtime.compile_engine(descriptor_onnx, FP16)
    assert core.calls == []


def test_timings_of_the_builds_before_are_kept_and_hashed(
    make_runtime: MakeRuntime, descriptor_onnx: Path, tmp_path: Path, core: Core
) -> None:
    table = TensorrtSection(builder="api")
    config = C7InferenceConfig(runtime="tensorrt", tensorrt=table, timing_cache_dir=tmp_path / "timing")
    runtime = TensorrtRuntime(config)
    first = runtime.compile_engine(descriptor_onnx, FP16)
    again = runtime.compile_engine(descriptor_onnx, FP16)
    runtime._cuda.close()
    assert first.timing_cache_sha256 is not None
    assert first.timing_cache_sha256 == again.timing_cache_sha256
    assert again.engine_sha256 == first.engine_sha256


def test_what_a_build_may_write_is_bounded(trt: ModuleType, descriptor_onnx: Path, tmp_path: Path) -> None:
    table = TensorrtSection(builder="api")
    config = C7InferenceConfig(runtime="tensorrt", tensorrt=table, storage_room_bytes=100, engine_dir=tmp_path / "few")
    runtime = TensorrtRuntime(config)
    with pytest.raises(EngineStoreError, match="the engine of descriptor is not written"):
        runtime.compile_engine(descriptor_onnx, FP16)
    assert not (tmp_path / "few").exists()
    runtime._cuda.close()


def test_how_far_a_build_is_is_told(trt: ModuleType, descriptor_onnx: Path) -> None:
    told: list[str] = []
    config = C7InferenceConfig(runtime="tensorrt", tensorrt=TensorrtSection(builder="api"))
    runtime = TensorrtRuntime(config, progress=told.append)
    runtime.compile_engine(descriptor_onnx, FP16)
    runtime._cuda.close()
    assert any(each.startswith("Building Engine ") for each in told)


def test_a_build_that_is_no_longer_wanted_ends_and_leaves_nothing(trt: ModuleType, descriptor_onnx: Path) -> None:
    config = C7InferenceConfig(runtime="tensorrt", tensorrt=TensorrtSection(builder="api"))
    runtime = TensorrtRuntime(config, cancelled=lambda: "the operator went home")
    with pytest.raises(EngineBuildError, match=r"descriptor\.onnx: the build was ended: the operator went home"):
        runtime.compile_engine(descriptor_onnx, FP16)
    assert not (descriptor_onnx.parent / "engines").exists()
    runtime._cuda.close()


def test_two_engines_are_not_built_at_once(trt: ModuleType, descriptor_onnx: Path) -> None:
    refusals: list[str] = []

    def build_another() -> str:
        if not refusals:
            with pytest.raises(EngineBuildError, match="another engine is being built in this process") as refusal:
                second.compile_engine(descriptor_onnx, FP16)
            refusals.append(str(refusal.value))
        return ""

    config = C7InferenceConfig(runtime="tensorrt", tensorrt=TensorrtSection(builder="api"))
    first, second = TensorrtRuntime(config, cancelled=build_another), TensorrtRuntime(config)
    first.compile_engine(descriptor_onnx, FP16)
    assert refusals
    second.compile_engine(descriptor_onnx, FP16)
    for runtime in (first, second):
        runtime._cuda.close()


# Loading.


def test_an_engine_of_another_tensorrt_is_refused_before_tensorrt_sees_it(
    make_runtime: MakeRuntime, entry: EngineCacheEntry, core: Core, trt: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt, "__version__", "10.7.0")
    host = msgspec.structs.replace(entry.host, tensorrt="10.7.0", runtime_version="10.7.0")
    moved = rewritten(entry, host=host, path=entry.path.with_name(entry.path.name.replace("trt10.3", "trt10.7")))
    runtime = make_runtime()
    core.calls.clear()
    with pytest.raises(EngineDeserializeError, match=r"expected an engine of TensorRT 10\.7\.0, found one of 10\.3\.0"):
        runtime.deserialize_engine(moved)
    assert "deserialize_cuda_engine" not in core.calls


def test_metadata_that_says_something_else_than_the_engine_is_refused(
    make_runtime: MakeRuntime, entry: EngineCacheEntry
) -> None:
    inputs = {**entry.inputs, "bias_by_image": TensorSpec((-1, 5), "float32")}
    other = rewritten(entry, inputs=inputs)
    with pytest.raises(EngineDeserializeError, match=r"bias_by_image: expected .*5\], found .*4\]; compile it again"):
        make_runtime().deserialize_engine(other)


def test_a_graph_that_no_engine_can_have_refuses_the_load(make_runtime: MakeRuntime, entry: EngineCacheEntry) -> None:
    runtime = make_runtime(cuda_graphs={"descriptor": ({"image": (9, 3, 8, 8), "bias_by_image": (9, 4)},)})
    with pytest.raises(EngineDeserializeError, match=r"cuda_graphs gives input image .*take these shapes out"):
        runtime.deserialize_engine(entry)


def test_at_the_listed_shapes_a_graph_gives_what_a_plain_run_gives(
    make_runtime: MakeRuntime, entry: EngineCacheEntry, device: Device
) -> None:
    runtime = make_runtime(cuda_graphs={"descriptor": ({"image": (1, 3, 8, 8), "bias_by_image": (1, 4)},)})
    plain = make_runtime()
    handle, other = runtime.deserialize_engine(entry), plain.deserialize_engine(entry)
    device.calls.clear()
    for images, seed in ((1, 1), (2, 2), (1, 3)):
        found, expected = (
            each.infer(engine, arrays(images, seed)) for each, engine in ((runtime, handle), (plain, other))
        )
        for name in expected:
            np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(expected[name]))
    assert device.calls.count("cudaGraphLaunch") == 2
    runtime.release_engine(handle)
    plain.release_engine(other)


def test_a_load_that_finds_no_memory_leaves_nothing_and_may_be_tried_again(
    make_runtime: MakeRuntime, entry: EngineCacheEntry, device: Device
) -> None:
    runtime = make_runtime()
    before = device.live()
    device.fail("cudaMalloc", 2)
    with pytest.raises(OutOfMemoryError, match="descriptor"):
        runtime.deserialize_engine(entry)
    assert device.live() == before
    runtime.release_engine(runtime.deserialize_engine(entry))


# Running.


def test_device_tensors_come_out_where_they_went_in(
    make_runtime: MakeRuntime, entry: EngineCacheEntry, device: Device
) -> None:
    runtime = make_runtime()
    handle = runtime.deserialize_engine(entry)
    given = {name: to_device(runtime._cuda, device, array) for name, array in arrays().items()}
    expected = runtime.infer(handle, arrays())
    copies = device.calls.count("cudaMemcpyAsync")
    outputs = runtime.infer(handle, given)
    assert device.calls.count("cudaMemcpyAsync") - copies == len(given) + len(outputs)
    for name, tensor in outputs.items():
        assert isinstance(tensor, DeviceTensor)
        size_bytes = int(np.prod(tensor.shape)) * tensor.dtype.itemsize
        found = device.bytes_at(tensor._owner.address, size_bytes).view(tensor.dtype).reshape(tensor.shape)
        np.testing.assert_array_equal(found, np.asarray(expected[name]))
    runtime.release_engine(handle)
    del given, outputs, tensor


def test_host_and_device_are_not_mixed(make_runtime: MakeRuntime, entry: EngineCacheEntry, device: Device) -> None:
    runtime = make_runtime()
    handle = runtime.deserialize_engine(entry)
    mixed: dict[str, Tensor] = {**arrays(), "image": to_device(runtime._cuda, device, arrays()["image"])}
    with pytest.raises(InvalidInputError, match=r"expected all inputs on cuda:0 .*found bias_by_image elsewhere"):
        runtime.infer(handle, mixed)
    runtime.release_engine(handle)
    del mixed


def test_shapes_that_fit_one_by_one_and_not_together_cost_one_request(
    make_runtime: MakeRuntime, entry: EngineCacheEntry
) -> None:
    runtime = make_runtime()
    handle = runtime.deserialize_engine(entry)
    torn = {"image": arrays(1)["image"], "bias_by_image": arrays(3)["bias_by_image"]}
    expected = runtime.infer(handle, arrays())
    with pytest.raises(InvalidInputError, match=r"go together.*image \[3, 3, 8, 8\].*bias_by_image \[2, 4\]"):
        runtime.infer(handle, {"image": arrays(3)["image"], "bias_by_image": arrays(2)["bias_by_image"]})
    for name, array in runtime.infer(handle, arrays()).items():
        np.testing.assert_array_equal(np.asarray(array), np.asarray(expected[name]))
    runtime.infer(handle, torn)  # one picture is broadcast over three biases: that goes together
    runtime.release_engine(handle)


def test_engines_that_share_their_scratch_memory_take_turns(
    make_runtime: MakeRuntime, entry: EngineCacheEntry, device: Device
) -> None:
    runtime = make_runtime(share_activation_memory=True)
    handles = [runtime.deserialize_engine(entry) for _ in range(3)]
    expected = {seed: np.asarray(runtime.infer(handles[0], arrays(2, seed))["descriptor"]) for seed in range(3)}
    with ThreadPoolExecutor(3) as pool:
        runs = [
            (seed, pool.submit(runtime.infer, handles[seed], arrays(2, seed))) for _ in range(20) for seed in range(3)
        ]
        for seed, run in runs:
            np.testing.assert_array_equal(np.asarray(run.result(timeout=60)["descriptor"]), expected[seed])
    for handle in handles:
        runtime.release_engine(handle)


# What is not here.


def test_without_a_device_the_runtime_is_refused_and_tensorrt_not_asked(device: Device, core: Core) -> None:
    device.remove_device()
    core.calls.clear()
    with pytest.raises(RuntimeNotAvailableError, match="expected a CUDA device 0, found 0 with no driver"):
        TensorrtRuntime(C7InferenceConfig(runtime="tensorrt"))
    assert "Runtime" not in core.calls


def test_another_device_is_in_the_label(trt: ModuleType, device: Device) -> None:
    device.device_count = 2
    runtime = TensorrtRuntime(C7InferenceConfig(runtime="tensorrt", device_index=1))
    assert runtime.current_runtime_label() == "tensorrt[cuda:1]"
    runtime._cuda.close()
