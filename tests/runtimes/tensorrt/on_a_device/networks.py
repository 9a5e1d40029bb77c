"""ONNX models for a device: fp16 by their own types, so that no choice of TensorRT's makes a test of them red."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from messages import TensorSpec
from runtimes.inference_runtime import BuildConfig, ProfileRange
from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.models import FLOAT, HALF, INT64, model

ROWS: tuple[ProfileRange, ...] = (("x", (1, 3), (2, 3), (6, 3)),)
FP16_ROWS = BuildConfig(precision="fp16", optimization_profiles=ROWS)
FP16 = BuildConfig(precision="fp16")
SIDE = 32
CALIBRATED_INPUT = (1, 3, SIDE, SIDE)
CALIBRATED_SPEC = TensorSpec(CALIBRATED_INPUT, "float32")
_WIDTH = 64


def scaled_rows() -> bytes:
    """`x` [n, 3] and `scale` [3] -> `scaled` [n, 3], `total` [n], `echo` [n, 3], all fp16."""
    return models.dynamic(HALF)


def descriptor() -> bytes:
    """The model of the contract of all runtimes, in fp16: `descriptor` [n, 4] and `echo` of `image` [n, 3, 8, 8] and
    `bias_by_image` [n, 4].
    """
    weight = np.random.default_rng(7).normal(size=(4, 3, 3, 3)).astype(np.float16)
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("ReduceMean", ["active"], ["pooled"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["pooled", "bias_by_image"], ["descriptor"]),
        helper.make_node("Identity", ["image"], ["echo"]),
    ]
    inputs: list[models.Value] = [("image", HALF, ["n", 3, 8, 8]), ("bias_by_image", HALF, ["n", 4])]
    outputs: list[models.Value] = [("descriptor", HALF, ["n", 4]), ("echo", HALF, ["n", 3, 8, 8])]
    return model(nodes, inputs, outputs, weight=weight)


def nonzero_rows() -> bytes:
    """`x` fp16 [n, 3] -> `where` int64 [2, ?] and `negated` fp16 [n, 3]."""
    nodes = [helper.make_node("NonZero", ["x"], ["where"]), helper.make_node("Neg", ["x"], ["negated"])]
    return model(nodes, [("x", HALF, ["n", 3])], [("where", INT64, [2, "found"]), ("negated", HALF, ["n", 3])])


def widened_rows(columns: int) -> bytes:
    """`x` fp16 [n, columns] -> `y`, as large: what a run needs lies in inputs and outputs."""
    weights = {"one": np.ones(1, np.float16)}
    return model(
        [helper.make_node("Add", ["x", "one"], ["y"])],
        [("x", HALF, ["n", columns])],
        [("y", HALF, ["n", columns])],
        **weights,
    )


def heavy_rows(columns: int, width: int) -> bytes:
    """`x` fp16 [1, columns] times a matrix of `columns * width * 2` bytes, of which no two rows are the same."""
    weight = np.random.default_rng(3).normal(size=(columns, width)).astype(np.float16) / np.float16(columns**0.5)
    return model(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        [("x", HALF, [1, columns])],
        [("y", HALF, [1, width])],
        weight=weight,
    )


def living_feature_maps(count: int, side: int = 256, width: int = 32) -> bytes:
    """`image` fp16 [n, width, side, side] -> `y` [n, 1, 1, 1], for which `count` maps must be in memory at once.

    Each is multiplied by a mean over all of them, so that none can be forgotten before the last one is there.
    """
    random = np.random.default_rng(5)
    weights = {
        f"weight{index}": random.normal(scale=0.05, size=(width, width, 3, 3)).astype(np.float16)
        for index in range(count)
    }
    nodes, last = [], "image"
    for index in range(count):
        nodes.append(helper.make_node("Conv", [last, f"weight{index}"], [f"map{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("GlobalAveragePool", [f"map{index}"], [f"mean{index}"]))
        last = f"map{index}"
    nodes += _added([f"mean{index}" for index in range(count)], "mean")
    for index in range(count):
        nodes.append(helper.make_node("Mul", [f"map{index}", "mean"], [f"scaled{index}"]))
        nodes.append(helper.make_node("GlobalMaxPool", [f"scaled{index}"], [f"max{index}"]))
    nodes += _added([f"max{index}" for index in range(count)], "most")
    nodes.append(helper.make_node("ReduceMean", ["most"], ["y"], axes=[1], keepdims=1))
    return model(nodes, [("image", HALF, ["n", width, side, side])], [("y", HALF, ["n", 1, 1, 1])], **weights)


def calibrated(dead_branch: bool = False) -> bytes:
    """fp32, for int8: four wide convolutions over `image`, with a named node for each. `dead_branch` adds a tensor
    that is zero whatever the picture holds.
    """
    random = np.random.default_rng(11)
    weights: dict[str, np.ndarray[Any, Any]] = {}
    nodes, last, depth = [], "image", 3
    for index in range(4):
        weights[f"w{index}"] = random.normal(size=(_WIDTH, depth, 3, 3)).astype(np.float32) / np.float32(
            (depth * 9) ** 0.5
        )
        pads = [1, 1, 1, 1]
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"conv{index}"], name=f"conv{index}", pads=pads))
        nodes.append(helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"], name=f"relu{index}"))
        last, depth = f"relu{index}", _WIDTH
    if dead_branch:
        weights["below"] = np.full((1, _WIDTH, 1, 1), -1e6, np.float32)
        weights["w_dead"] = random.normal(size=(_WIDTH, _WIDTH, 1, 1)).astype(np.float32)
        nodes.append(helper.make_node("Add", [last, "below"], ["lowered"], name="lower"))
        nodes.append(helper.make_node("Relu", ["lowered"], ["dead"], name="dead"))
        nodes.append(helper.make_node("Conv", ["dead", "w_dead"], ["still_dead"], name="still_dead"))
        nodes.append(helper.make_node("Add", [last, "still_dead"], ["joined"], name="join"))
        last = "joined"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["descriptor"], name="pool"))
    outputs: list[models.Value] = [("descriptor", FLOAT, [1, _WIDTH, 1, 1])]
    return model(nodes, [("image", FLOAT, list(CALIBRATED_INPUT))], outputs, **weights)


DELICATE = ("normalised", "attended", "squares", "cubes")


def delicate() -> bytes:
    """fp32 `x` [n, 256] through a layer norm, a softmax, a sum of squares and a power, each a named node, between two
    products that are faster in fp16 whatever the device.
    """
    random = np.random.default_rng(23)
    width = 256
    weights = {
        "before": random.normal(size=(width, 2048)).astype(np.float32) / np.float32(width**0.5),
        "after": random.normal(size=(2048, width)).astype(np.float32),
        "scale": np.ones(2048, np.float32),
        "shift": np.zeros(2048, np.float32),
        "two": np.array([2], np.float32),
    }
    made = [
        helper.make_node("MatMul", ["x", "before"], ["wide"], name="before"),
        helper.make_node("LayerNormalization", ["wide", "scale", "shift"], ["a"], name=DELICATE[0]),
        helper.make_node("Softmax", ["a"], ["b"], name=DELICATE[1]),
        helper.make_node("ReduceSumSquare", ["a"], ["c"], name=DELICATE[2], axes=[1], keepdims=1),
        helper.make_node("Pow", ["a", "two"], ["d"], name=DELICATE[3]),
        helper.make_node("Div", ["d", "c"], ["e"], name="share"),
        helper.make_node("Add", ["b", "e"], ["f"], name="joined"),
        helper.make_node("MatMul", ["f", "after"], ["y"], name="after"),
    ]
    return model(made, [("x", FLOAT, ["n", width])], [("y", FLOAT, ["n", width])], **weights)


def initializers(data: bytes) -> set[str]:
    return {tensor.name for tensor in onnx.load_model_from_string(data).graph.initializer}


def pictures(count: int) -> list[np.ndarray[Any, Any]]:
    """Inputs for `calibrated`, each another one."""
    random = np.random.default_rng(17)
    return [random.normal(size=CALIBRATED_INPUT).astype(np.float32) for _ in range(count)]


def _added(names: list[str], output: str) -> list[onnx.NodeProto]:
    """A node for each addition: what is added up has no operator of its own in every parser."""
    nodes, sum_so_far = [], names[0]
    for index, name in enumerate(names[1:], start=1):
        after = output if index == len(names) - 1 else f"{output}_{index}"
        nodes.append(helper.make_node("Add", [sum_so_far, name], [after]))
        sum_so_far = after
    return nodes
