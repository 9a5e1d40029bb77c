"""The factory: exactly the configured runtime, or a refusal that says why."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from messages import ConfigError, RuntimeNotAvailableError
from runtimes.build_flags import read_build_flag
from runtimes.config import C7InferenceConfig, RuntimeName
from runtimes.inference_factory import _RUNTIME_TO_BUILD_FLAG, build_inference_runtime

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
