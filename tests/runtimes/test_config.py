"""What a configuration says of itself."""

from __future__ import annotations

import pytest

from runtimes.config import C7InferenceConfig


@pytest.mark.parametrize(
    ("config", "uses_gpu"),
    [
        (C7InferenceConfig(), False),
        (C7InferenceConfig(device="cuda"), True),
        (C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"), False),
        (C7InferenceConfig(runtime="onnx_trt_ep", provider="cuda"), True),
        (C7InferenceConfig(runtime="onnx_trt_ep", provider="tensorrt"), True),
        (C7InferenceConfig(runtime="tensorrt"), True),
    ],
)
def test_a_configuration_says_whether_its_engines_run_on_a_gpu(config: C7InferenceConfig, uses_gpu: bool) -> None:
    assert config.uses_gpu == uses_gpu
