"""The factory: exactly the configured runtime, or a refusal that says why."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from messages import ConfigError, RuntimeNotAvailableError
from runtimes.build_flags import read_build_flag
from runtimes.config import C7InferenceConfig, RuntimeName, TensorrtSection
from runtimes.inference_factory import (
    _RUNTIME_TO_BUILD_FLAG,
    build_inference_runtime,
    check_runtime_config,
    check_tensorrt_section,
)

CONFIGURATIONS: dict[RuntimeName, C7InferenceConfig] = {
    "tensorrt": C7InferenceConfig(runtime="tensorrt", device="cuda"),
    "onnx_trt_ep": C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"),
    "pytorch_fp16": C7InferenceConfig(),
}


@pytest.fixture(autouse=True)
def no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    for flag in _RUNTIME_TO_BUILD_FLAG.values():
        monkeypatch.delenv(flag, raising=False)


def test_onnx_runtime_on_the_cpu_is_built() -> None:
    pytest.importorskip("onnxruntime")
    assert build_inference_runtime(CONFIGURATIONS["onnx_trt_ep"]).current_runtime_label() == "onnx_trt_ep[cpu]"


@pytest.mark.torch
def test_an_unconfigured_environment_gets_the_baseline() -> None:
    pytest.importorskip("torch")
    assert build_inference_runtime(C7InferenceConfig()).current_runtime_label() == "pytorch_fp16[cpu]"


def test_tensorrt_is_built_where_it_is(trt: ModuleType) -> None:
    assert build_inference_runtime(CONFIGURATIONS["tensorrt"]).current_runtime_label() == "tensorrt"


def test_without_tensorrt_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(RuntimeNotAvailableError, match=r"cannot be imported .* install JetPack's .*extra `tensorrt`"):
        build_inference_runtime(CONFIGURATIONS["tensorrt"])


@pytest.mark.parametrize("runtime", _RUNTIME_TO_BUILD_FLAG)
def test_a_runtime_that_is_built_out_is_refused_with_its_flag(
    monkeypatch: pytest.MonkeyPatch, runtime: RuntimeName
) -> None:
    flag = _RUNTIME_TO_BUILD_FLAG[runtime]
    monkeypatch.setenv(flag, "OFF")
    with pytest.raises(RuntimeNotAvailableError, match=f"{runtime}.*{flag}=OFF"):
        build_inference_runtime(CONFIGURATIONS[runtime])


def test_the_flags_of_other_runtimes_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("BUILD_TENSORRT_RUNTIME", "OFF")
    monkeypatch.setenv("BUILD_PYTORCH_FP16_RUNTIME", "OFF")
    assert build_inference_runtime(CONFIGURATIONS["onnx_trt_ep"]).current_runtime_label() == "onnx_trt_ep[cpu]"


@pytest.mark.parametrize("value", ["on", "1", "", "TRUE", "ON "])
def test_a_flag_that_is_neither_on_nor_off_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="BUILD_X_RUNTIME: expected ON or OFF"):
        read_build_flag("BUILD_X_RUNTIME", {"BUILD_X_RUNTIME": value})


def test_a_flag_is_on_unless_it_is_off() -> None:
    assert read_build_flag("BUILD_X_RUNTIME", {})
    assert read_build_flag("BUILD_X_RUNTIME", {"BUILD_X_RUNTIME": "ON"})
    assert not read_build_flag("BUILD_X_RUNTIME", {"BUILD_X_RUNTIME": "OFF"})


def test_onnx_runtime_takes_no_provider_by_default() -> None:
    with pytest.raises(ConfigError, match="expected tensorrt, cuda or cpu"):
        build_inference_runtime(C7InferenceConfig(runtime="onnx_trt_ep"))


def test_a_provider_belongs_to_onnx_runtime_alone() -> None:
    with pytest.raises(ConfigError, match="expected none with runtime pytorch_fp16, got cuda"):
        build_inference_runtime(C7InferenceConfig(runtime="pytorch_fp16", provider="cuda"))


TOLD = [
    TensorrtSection(builder="api"),
    TensorrtSection(optimization_level=5),
    TensorrtSection(share_activation_memory=True),
    TensorrtSection(cuda_graphs={"vpr": ({"image": (1, 3)},)}),
]


@pytest.mark.parametrize("section", TOLD)
@pytest.mark.parametrize("runtime", ["onnx_trt_ep", "pytorch_fp16"])
def test_what_only_tensorrt_can_be_told_belongs_to_it_alone(runtime: RuntimeName, section: TensorrtSection) -> None:
    provider = CONFIGURATIONS[runtime].provider
    with pytest.raises(ConfigError, match=f"tensorrt: expected no such table with runtime {runtime}; it belongs to"):
        build_inference_runtime(C7InferenceConfig(runtime=runtime, provider=provider, tensorrt=section))


@pytest.mark.parametrize("section", [TensorrtSection(), *TOLD])
def test_tensorrt_is_told_what_it_can_be_told(section: TensorrtSection) -> None:
    check_runtime_config(C7InferenceConfig(runtime="tensorrt", tensorrt=section))


def test_graphs_keep_an_address_that_shared_memory_does_not() -> None:
    section = TensorrtSection(
        share_activation_memory=True, cuda_graphs={"vpr": ({},), "other": (), "matcher": ({"a": (1,)},)}
    )
    with pytest.raises(
        ConfigError,
        match=r"tensorrt: expected cuda_graphs or share_activation_memory, found both \(vpr, matcher\): a graph keeps",
    ):
        check_runtime_config(C7InferenceConfig(runtime="tensorrt", tensorrt=section))


def test_a_model_without_graphs_may_be_listed_beside_shared_memory() -> None:
    check_tensorrt_section(TensorrtSection(share_activation_memory=True, cuda_graphs={"vpr": ()}))
