"""What a configuration says of itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from messages.tensor import RANK_MAX, TENSORS_MAX
from runtimes.config import GRAPHS_MAX, C7InferenceConfig, TensorrtSection


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


def section(**fields: Any) -> TensorrtSection:
    return msgspec.convert(fields, TensorrtSection)


def test_tensorrt_is_built_with_polygraphy_and_flown_without_graphs_unless_it_is_asked_for_more() -> None:
    found = section()
    assert found == TensorrtSection() == C7InferenceConfig().tensorrt
    assert (found.builder, found.optimization_level) == ("polygraphy", 3)
    assert (found.cuda_graphs, found.share_activation_memory) == ({}, False)


def test_graphs_are_listed_for_a_model_by_the_shapes_of_its_inputs() -> None:
    found = section(builder="trtexec", cuda_graphs={"vpr": [{"image": [1, 3]}, {}]}, optimization_level=5)
    assert found.cuda_graphs == {"vpr": ({"image": (1, 3)}, {})}
    assert msgspec.json.decode(msgspec.json.encode(found), type=TensorrtSection) == found


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"builder": "onnx2trt"}, r"Invalid enum value 'onnx2trt' - at `\$.builder`"),
        ({"optimization_level": 6}, r"<= 5 - at `\$.optimization_level`"),
        ({"optimization_level": -1}, r">= 0 - at `\$.optimization_level`"),
        ({"optimization_level": "3"}, r"Expected `int`, got `str`"),
        ({"share_activation_memory": 1}, r"Expected `bool`, got `int`"),
        ({"shared_memory": True}, "unknown field `shared_memory`"),
        ({"cuda_graphs": {"vpr": {"image": [1]}}}, "Expected `array`, got `object`"),
        ({"cuda_graphs": {"vpr": [{"image": [-1, 3]}]}}, ">= 0"),
        ({"cuda_graphs": {"vpr": [{"image": [1] * (RANK_MAX + 1)}]}}, f"length <= {RANK_MAX}"),
        ({"cuda_graphs": {"vpr": [{}] * (GRAPHS_MAX + 1)}}, f"length <= {GRAPHS_MAX}"),
        ({"cuda_graphs": {"vpr": [{str(n): [1] for n in range(TENSORS_MAX + 1)}]}}, f"length <= {TENSORS_MAX}"),
        ({"cuda_graphs": {"": []}}, "length >= 1"),
    ],
)
def test_what_tensorrt_cannot_be_told_is_refused_where_it_stands(fields: dict[str, Any], refusal: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=refusal):
        section(**fields)
