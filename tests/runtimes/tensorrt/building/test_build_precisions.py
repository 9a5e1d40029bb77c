"""What a build may compute in: constraints that are obeyed, flags that are off, and an engine that is weaker."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper

from messages import EngineBuildError
from runtimes.cuda.port import Cuda
from runtimes.inference_runtime import BuildConfig
from runtimes.onnx_types import OnnxTypes
from runtimes.tensorrt.building.builder_config import configure, flags_of
from runtimes.tensorrt.building.network import ParsedModel, hold_to_fp32
from runtimes.tensorrt.building.recipe import engine_recipe
from runtimes.tensorrt.log import TensorrtLog
from tests.runtimes.tensorrt.building.builds import PROFILE, Bench, descriptor, put_trtexec_first
from tests.runtimes.tensorrt.models import FLOAT, INT64, model

if TYPE_CHECKING:
    from tests.doubles.tensorrt.core import Core


@pytest.fixture
def bench(trt: ModuleType, log: TensorrtLog, cuda: Cuda, tmp_path: Path) -> Bench:
    return Bench(trt, log, cuda, tmp_path)


def of_nodes(*nodes: Any, **weights: np.ndarray) -> bytes:
    """`x` [n, 4] -> `y` [n, m]."""
    return model([*nodes], [("x", FLOAT, ["n", 4])], [("y", FLOAT, ["n", "m"])], **weights)


def held(bench: Bench, data: bytes, *nodes: str) -> tuple[str, ...]:
    parsed = ParsedModel(bench.trt, bench.log, bench.save(data), strongly_typed=False)
    return hold_to_fp32(bench.trt, parsed.network, nodes)


def layers_of(trt: ModuleType, data: bytes) -> dict[str, str]:
    """The type of what each layer reads, by its name."""
    plan, _ = trt.plan.decode(data)
    return {
        layer["Name"]: layer["Inputs"][0]["Format/Datatype"].split(" format")[0].split()[-1]
        for layer in json.loads(plan.layers)["Layers"]
        if layer["LayerType"] != "Reformat"
    }


def test_a_delicate_operation_computes_in_fp32_in_the_middle_of_fp16(bench: Bench, trt: ModuleType) -> None:
    built = bench.build(descriptor(), "mixed")

    assert layers_of(trt, built.data) == {"conv + relu": "FP16", "mean": "FP32", "add": "FP16"}


def test_the_square_in_a_sum_of_squares_is_held_though_the_parser_says_no_node_of_it(bench: Bench) -> None:
    data = of_nodes(
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("ReduceL2", ["r"], ["y"], name="norm", axes=[1], keepdims=1),
    )

    assert held(bench, data, "norm") == ("(Unnamed Layer* 1) [ElementWise]", "norm", "norm_0")


def test_the_logarithm_of_a_softmax_is_held_with_it(bench: Bench) -> None:
    data = of_nodes(helper.make_node("LogSoftmax", ["x"], ["y"], name="log", axis=1))

    assert held(bench, data, "log") == ("log", "(Unnamed Layer* 1) [Unary]")


def test_the_square_is_held_by_trtexec_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    put_trtexec_first(monkeypatch)
    data = of_nodes(
        helper.make_node("MatMul", ["x", "weight"], ["r"], name="matmul"),
        helper.make_node("ReduceL2", ["r"], ["y"], name="norm", axes=[1], keepdims=1),
        weight=np.eye(4, dtype=np.float32),
    )
    profile = (("x", (1, 4), (2, 4), (4, 4)),)

    expected = bench.build(data, "mixed", profile=profile)
    assert bench.build(data, "mixed", "trtexec", profile=profile).data == expected.data
    assert expected.report.layer_precisions == {"fp16": 1, "fp32": 3, "moved": 2}


@pytest.mark.parametrize("name", ["/blocks[0]/norm", "a]b", "norm"])
def test_a_node_is_found_by_its_name_whatever_is_in_it(bench: Bench, name: str) -> None:
    data = of_nodes(helper.make_node("ReduceSumSquare", ["x"], ["y"], name=name, axes=[1], keepdims=1))

    assert held(bench, data, name) == ("(Unnamed Layer* 0) [ElementWise]", name)


def test_a_layer_that_only_bears_the_name_of_another_node_is_not_taken_for_it(bench: Bench) -> None:
    data = of_nodes(
        helper.make_node("ReduceL2", ["x"], ["r"], name="norm", axes=[1], keepdims=1),
        helper.make_node("Mul", ["x", "r"], ["s"], name="norm_0"),
        helper.make_node("Softmax", ["s"], ["y"], name="softmax", axis=1),
    )

    assert held(bench, data, "norm_0") == ("norm_0_1",)


def test_a_delicate_operation_on_integers_has_no_precision_to_be_held_to(bench: Bench, trt: ModuleType) -> None:
    nodes = [
        helper.make_node("Pow", ["size", "two"], ["squared"], name="pow"),
        helper.make_node("Softmax", ["x"], ["y"], name="softmax", axis=1),
    ]
    inputs: list[Any] = [("x", FLOAT, ["n", 4]), ("size", INT64, [2])]
    data = model(nodes, inputs, [("y", FLOAT, ["n", 4]), ("squared", INT64, [2])], two=np.array(2))

    assert held(bench, data, "pow", "softmax") == ("softmax",)


def test_a_node_of_which_the_parser_makes_no_layer_is_a_refusal(bench: Bench) -> None:
    with pytest.raises(EngineBuildError, match=r"expected a layer for each operation .* found none for gone"):
        held(bench, descriptor(), "gone", "mean")


def test_tf32_is_off_and_the_layers_are_told_in_detail(bench: Bench, trt: ModuleType) -> None:

    config = trt.Builder(bench.log).create_builder_config()
    assert flags_of(trt, config) == ("TF32",), "which TensorRT has on by itself"
    configure(trt, config, engine_recipe("m", BuildConfig(), OnnxTypes()))

    assert flags_of(trt, config) == ("FP16",)
    assert config.profiling_verbosity is trt.ProfilingVerbosity.DETAILED


def test_an_engine_for_which_tensorrt_used_none_of_its_permission_is_refused(bench: Bench, core: Core) -> None:
    core.slow_types = {"HALF"}

    with pytest.raises(EngineBuildError, match="expected layers in fp16, found 3 in fp32: TensorRT took the flag for"):
        bench.build(descriptor())


def test_an_int8_engine_without_an_int8_layer_is_refused_and_a_mixed_one_is_not(bench: Bench, core: Core) -> None:
    core.slow_types = {"INT8"}
    dataset = bench.dataset()

    with pytest.raises(EngineBuildError, match="expected layers in int8, found 3 in fp16"):
        bench.build(descriptor(), "int8", dataset=dataset)
    assert bench.build(descriptor(), "mixed", dataset=dataset).report.layer_precisions["fp16"] == 2


def test_a_configuration_that_a_tool_changed_is_refused_before_the_build(
    bench: Bench, trt: ModuleType, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_flag = trt.IBuilderConfig.set_flag

    def with_tf32(config: Any, flag: Any) -> None:
        set_flag(config, flag)
        set_flag(config, trt.BuilderFlag.TF32)

    monkeypatch.setattr(trt.IBuilderConfig, "set_flag", with_tf32)
    monkeypatch.setattr(trt.IBuilderConfig, "clear_flag", lambda config, flag: None)
    with pytest.raises(EngineBuildError, match=r"expected flags, opt.*'FP16',.*found.*'FP16', 'TF32'"):
        bench.build(descriptor())


def test_inputs_whose_values_decide_shapes_are_refused_by_every_builder(bench: Bench) -> None:
    nodes = [helper.make_node("Reshape", ["x", "target"], ["y"], name="reshape")]
    data = model(nodes, [("x", FLOAT, [2, 4]), ("target", INT64, [2])], [("y", FLOAT, ["a", "b"])])

    with pytest.raises(EngineBuildError, match="expected inputs whose values decide no shape, found target"):
        bench.build(data, profile=())


def test_a_profile_that_does_not_fit_the_model_is_tensorrts_refusal(bench: Bench) -> None:
    too_many_channels = (("image", (1, 4, 8, 8), (2, 4, 8, 8), (4, 4, 8, 8)),)

    with pytest.raises(EngineBuildError, match=r"image: kMIN dimensions in profile 0 are \[1, 4, 8, 8\]"):
        bench.build(descriptor(), profile=too_many_channels)
    with pytest.raises(EngineBuildError, match="dynamic or shape inputs, but no optimization profile"):
        bench.build(descriptor(), profile=())
    assert bench.build(descriptor(), profile=PROFILE).data
