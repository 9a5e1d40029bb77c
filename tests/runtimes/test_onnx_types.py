"""Which types a model has by itself, and the names of what loses most in fp16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from messages import EngineBuildError
from runtimes.onnx_model import floating_activations, name_nodes
from runtimes.onnx_types import DELICATE_OPS, audit_typed
from runtimes.source_model import read_source

onnx = pytest.importorskip("onnx")
FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def test_an_fp32_model_has_no_narrow_types_and_its_delicate_operations_get_names(descriptor_onnx: Path) -> None:
    source = read_source(descriptor_onnx, suffix=".onnx")
    model, types = audit_typed(source, "fp16")

    assert types.narrow == ()
    assert types.delicate == ("ReduceMean.0",)
    named = onnx.load_model_from_string(model.data)
    assert [node.name for node in named.graph.node if node.op_type == "ReduceMean"] == ["ReduceMean.0"]
    assert model.inputs.keys() == {"image", "bias_by_image"}


def test_a_model_whose_operations_have_names_is_the_very_same(save_onnx: Callable[..., Path]) -> None:
    node = onnx.helper.make_node("Softmax", ["x"], ["y"], name="soft")
    source = read_source(save_onnx("named", [node], [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])]), suffix=".onnx")

    model, types = audit_typed(source, "mixed")
    assert model.data == source.data
    assert types.delicate == ("soft",)


def test_a_name_that_is_given_is_no_other_nodes_name(save_onnx: Callable[..., Path]) -> None:
    nodes = [
        onnx.helper.make_node("Identity", ["x"], ["a"], name="Softmax.0"),
        onnx.helper.make_node("Softmax", ["a"], ["b"]),
        onnx.helper.make_node("Softmax", ["b"], ["y"]),
    ]
    path = save_onnx("taken", nodes, [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4])])

    data, names = name_nodes(path.read_bytes(), DELICATE_OPS)
    assert names == ("Softmax.2", "Softmax.1")
    assert len({node.name for node in onnx.load_model_from_string(data).graph.node}) == 3


def test_a_model_in_fp16_says_so_and_one_with_fp32_in_it_is_no_fp16_model(save_onnx: Callable[..., Path]) -> None:
    relu = onnx.helper.make_node("Relu", ["x"], ["h"])
    cast = onnx.helper.make_node("Cast", ["h"], ["y"], to=FLOAT)
    narrow = save_onnx("narrow", [relu], [("x", FLOAT16, [1, 4])], [("h", FLOAT16, [1, 4])])
    both = save_onnx("both", [relu, cast], [("x", FLOAT16, [1, 4])], [("y", FLOAT, [1, 4])])

    assert audit_typed(read_source(narrow, suffix=".onnx"), "fp16")[1].narrow == ("fp16",)
    assert audit_typed(read_source(both, suffix=".onnx"), "mixed")[1].narrow == ("fp16",)
    with pytest.raises(EngineBuildError, match="expected fp16 throughout, found y is FLOAT"):
        audit_typed(read_source(both, suffix=".onnx"), "fp16")


def test_a_model_that_quantises_says_int8(save_onnx: Callable[..., Path]) -> None:
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    path = save_onnx(
        "quantised",
        nodes,
        [("x", FLOAT, [1, 4])],
        [("y", FLOAT, [1, 4])],
        {"scale": np.array(0.5, np.float32), "zero": np.array(0, np.int8)},
    )

    assert audit_typed(read_source(path, suffix=".onnx"), "int8")[1].narrow == ("int8",)


def test_the_activations_of_a_model_are_its_floating_inputs_and_results_and_none_of_its_constants(
    save_onnx: Callable[..., Path],
) -> None:
    half = onnx.numpy_helper.from_array(np.array([0.5], np.float32))
    nodes = [
        onnx.helper.make_node("Constant", [], ["half"], value=half),
        onnx.helper.make_node("Mul", ["x", "half"], ["scaled"]),
        onnx.helper.make_node("Shape", ["scaled"], ["shape"]),
        onnx.helper.make_node("Reshape", ["weight", "shape"], ["bent"]),
        onnx.helper.make_node("Add", ["scaled", "bent"], ["y"]),
    ]
    inputs = [("x", FLOAT, [1, 4]), ("ids", onnx.TensorProto.INT64, [3])]
    path = save_onnx("activations", nodes, inputs, [("y", FLOAT, [1, 4])], {"weight": np.ones(4, np.float32)})

    assert floating_activations(path.read_bytes()) == {"x", "scaled", "bent", "y"}
