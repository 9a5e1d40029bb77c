"""A conditional refinement: correlates two patches and turns their homography step by step (a convolutional GRU)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actors.demo.onnx_graph import OnnxGraph, Value

if TYPE_CHECKING:
    import onnx

CORNER_REACH_PX = 8.0


@dataclass(frozen=True)
class RefinerSize:
    """`viewpoints` is the number of learned viewpoints; a request names one of them by its index."""

    image_px: int
    channels: int
    hidden: int
    steps: int
    viewpoints: int


def refiner(size: RefinerSize) -> onnx.ModelProto:
    """`query`, `reference [1, 1, image_px, image_px]`, `viewpoint int64 [1]` -> `corners [1, 4, 2]` in pixels.

    A viewpoint outside the table is a fault at run time, inside the runtime's own gather: no shape or dtype tells it.
    """
    graph = OnnxGraph("refiner")
    pictures = [graph.input(name, (1, 1, size.image_px, size.image_px)) for name in ("query", "reference")]
    index = graph.input("viewpoint", (1,), np.int64)
    table = graph.weight("viewpoints", graph.normal("viewpoints", (size.viewpoints, size.hidden), deviation=1.0))
    viewpoint = graph.reshape(graph.op("Gather", table, index, axis=0), 1, size.hidden, 1, 1)
    query, reference = (_features(graph, picture, size) for picture in pictures)
    evidence = _correlation(graph, query, reference, size)
    state = graph.op("Tanh", graph.op("Add", graph.conv(query, "context", size.channels, size.hidden), viewpoint))
    for _ in range(size.steps):
        state = _gated_step(graph, state, evidence, size.hidden)
    pooled = graph.reshape(graph.op("ReduceMean", state, axes=[2, 3], keepdims=1), 1, size.hidden)
    corners = graph.op("Tanh", graph.linear(pooled, "corners", size.hidden, 8))
    graph.output(
        graph.op("Mul", graph.reshape(corners, 1, 4, 2), graph.constant(CORNER_REACH_PX)), "corners", (1, 4, 2)
    )
    return graph.model()


def _features(graph: OnnxGraph, picture: Value, size: RefinerSize) -> Value:
    """A quarter of the extent; both pictures go through the same weights."""
    x = graph.conv(graph.instance_norm(picture), "stem", 1, size.channels, kernel=5, stride=2, band_pass=True)
    x = graph.conv(graph.op("Relu", graph.instance_norm(x)), "quarter", size.channels, size.channels, stride=2)
    return graph.instance_norm(
        graph.conv(graph.op("Relu", graph.instance_norm(x)), "features", size.channels, size.channels)
    )


def _correlation(graph: OnnxGraph, query: Value, reference: Value, size: RefinerSize) -> Value:
    """Every cell of one patch against every cell of the other, reduced to the width of the state."""
    side = size.image_px // 4
    flat_query = graph.reshape(query, 1, size.channels, side * side)
    flat_reference = graph.op("Transpose", graph.reshape(reference, 1, size.channels, side * side), perm=[0, 2, 1])
    volume = graph.op("Mul", graph.op("MatMul", flat_reference, flat_query), graph.constant(size.channels**-0.5))
    volume = graph.reshape(volume, 1, side * side, side, side)
    return graph.op("Relu", graph.conv(volume, "evidence", side * side, size.hidden, kernel=1))


def _gated_step(graph: OnnxGraph, state: Value, evidence: Value, hidden: int) -> Value:
    """One step of a convolutional GRU; every step uses the same weights."""
    both = graph.op("Concat", state, evidence, axis=1)
    update = graph.op("Sigmoid", graph.conv(both, "update", 2 * hidden, hidden))
    reset = graph.op("Sigmoid", graph.conv(both, "reset", 2 * hidden, hidden))
    fresh = graph.op("Concat", graph.op("Mul", reset, state), evidence, axis=1)
    proposal = graph.op("Tanh", graph.conv(fresh, "proposal", 2 * hidden, hidden))
    return graph.op("Add", state, graph.op("Mul", update, graph.op("Sub", proposal, state)))
