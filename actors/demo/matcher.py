"""A keypoint matcher after LightGlue: self- and cross-attention over two sets of keypoints of any size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actors.demo.onnx_graph import OnnxGraph, Value

if TYPE_CHECKING:
    import onnx

RESIDUAL_GAIN = 0.01
"""Random attention knows nothing: what it adds stays small beside the descriptors that it is added to."""
SHARPNESS = 20.0
"""The similarity of two equal unit-length descriptors, before the softmax; a trained projection learns it."""


@dataclass(frozen=True)
class MatcherSize:
    image_px: int
    descriptor: int
    width: int
    heads: int
    layers: int


def matcher(size: MatcherSize) -> onnx.ModelProto:
    """`keypoints0 [1, n0, 2]` in pixels, `descriptors0 [1, n0, descriptor]`, and the same of side 1 -> matches.

    `log_assignment [1, n0, n1]` is the log-probability of each pair, `matches int64 [1, n0]` the partner on side 1 of
    each keypoint of side 0 where both prefer each other and -1 elsewhere, `scores [1, n0]` its probability or 0.
    """
    graph = OnnxGraph("matcher")
    places = [graph.input(f"keypoints{side}", (1, f"n{side}", 2)) for side in (0, 1)]
    states = [graph.input(f"descriptors{side}", (1, f"n{side}", size.descriptor)) for side in (0, 1)]
    half = size.width // size.heads // 2
    frequencies = graph.weight("frequencies", graph.normal("frequencies", (2, half), deviation=1.0))
    turns = [_rotation(graph, place, frequencies, size) for place in places]
    states = [graph.linear(state, "embed", size.descriptor, size.width, orthogonal=True) for state in states]
    for index in range(size.layers):
        states = [
            _self_attention(graph, x, turn, f"layer{index}.self", size) for x, turn in zip(states, turns, strict=True)
        ]
        states = _cross_attention(graph, states, f"layer{index}.cross", size)
    _assign(graph, states, size.width)
    return graph.model()


def _rotation(graph: OnnxGraph, keypoints: Value, frequencies: Value, size: MatcherSize) -> tuple[Value, Value]:
    """Learned projections of the place as angles: their cosine and signed sine, `[1, 1, n, head_width]` each."""
    centred = graph.op("Sub", graph.op("Mul", keypoints, graph.constant(2.0 / size.image_px)), graph.constant(1.0))
    angles = graph.op("MatMul", centred, frequencies)
    cosine, sine = graph.op("Cos", angles), graph.op("Sin", angles)
    both = (graph.op("Concat", cosine, cosine, axis=-1), graph.op("Concat", graph.op("Neg", sine), sine, axis=-1))
    axis = graph.constant(np.array([1]))
    return graph.op("Unsqueeze", both[0], axis), graph.op("Unsqueeze", both[1], axis)


def _rotate(graph: OnnxGraph, x: Value, turn: tuple[Value, Value], half: int) -> Value:
    """Rotary encoding: attention then sees where two keypoints lie relative to each other."""
    cosine, sine = turn
    first, second = graph.ops("Split", 2, x, graph.constant(np.array([half, half])), axis=-1)
    swapped = graph.op("Concat", second, first, axis=-1)
    return graph.op("Add", graph.op("Mul", x, cosine), graph.op("Mul", swapped, sine))


def _pair_of_heads(graph: OnnxGraph, x: Value, name: str, size: MatcherSize) -> Value:
    """Two projections in one, `[1, 2 * heads, n, head_width]`: a program of fewer nodes is read faster."""
    return graph.split_heads(graph.linear(x, name, size.width, 2 * size.width), 2 * size.heads, 2 * size.width)


def _part_heads(graph: OnnxGraph, x: Value, heads: int) -> tuple[Value, ...]:
    return graph.ops("Split", 2, x, graph.constant(np.array([heads, heads])), axis=1)


def _self_attention(graph: OnnxGraph, x: Value, turn: tuple[Value, Value], name: str, size: MatcherSize) -> Value:
    width, head_width = size.width, size.width // size.heads
    turned = _rotate(graph, _pair_of_heads(graph, x, f"{name}.query_key", size), turn, head_width // 2)
    query, key = _part_heads(graph, turned, size.heads)
    value = graph.split_heads(graph.linear(x, f"{name}.value", width, width), size.heads, width)
    message = graph.merge_heads(graph.attention(query, key, value, head_width=head_width), width)
    return _absorb(graph, x, graph.linear(message, f"{name}.mix", width, width), name, width)


def _cross_attention(graph: OnnxGraph, states: list[Value], name: str, size: MatcherSize) -> list[Value]:
    """Each side looks at the other; what it is asked with and what it asks with is one projection, as in LightGlue."""
    width, head_width = size.width, size.width // size.heads
    sides = [_part_heads(graph, _pair_of_heads(graph, x, f"{name}.key_value", size), size.heads) for x in states]
    updated = []
    for own, (query, _), (key, value) in zip(states, sides, reversed(sides), strict=True):
        seen = graph.merge_heads(graph.attention(query, key, value, head_width=head_width), width)
        updated.append(_absorb(graph, own, graph.linear(seen, f"{name}.mix", width, width), name, width))
    return updated


def _absorb(graph: OnnxGraph, x: Value, message: Value, name: str, width: int) -> Value:
    """A perceptron over state and message, added to the state."""
    hidden = graph.linear(graph.op("Concat", x, message, axis=-1), f"{name}.expand", 2 * width, 2 * width)
    hidden = graph.gelu(graph.layer_norm(hidden, f"{name}.norm", 2 * width))
    return graph.op("Add", x, graph.linear(hidden, f"{name}.contract", 2 * width, width, gain=RESIDUAL_GAIN))


def _assign(graph: OnnxGraph, states: list[Value], width: int) -> None:
    """Log of the double softmax, times how matchable each side's keypoint is; then the mutually best pairs."""
    sharp = math.sqrt(SHARPNESS)
    sides = [graph.linear(x, "project", width, width, gain=sharp, orthogonal=True) for x in states]
    similarity = graph.op("MatMul", sides[0], graph.op("Transpose", sides[1], perm=[0, 2, 1]))
    assignment = graph.op("Add", graph.op("LogSoftmax", similarity, axis=2), graph.op("LogSoftmax", similarity, axis=1))
    for state, perm in zip(states, ([0, 1, 2], [0, 2, 1]), strict=True):
        unmatchable = graph.op("Softplus", graph.op("Neg", graph.linear(state, "matchable", width, 1)))
        assignment = graph.op("Sub", assignment, graph.op("Transpose", unmatchable, perm=perm))
    best_of_row = graph.op("ReduceMax", assignment, axes=[2], keepdims=1)
    best_of_column = graph.op("ReduceMax", assignment, axes=[1], keepdims=1)
    mutual = graph.op("And", graph.op("Equal", assignment, best_of_row), graph.op("Equal", assignment, best_of_column))
    probability = graph.op("Where", mutual, graph.op("Exp", assignment), graph.constant(0.0))
    scores = graph.op("ReduceMax", probability, axes=[2], keepdims=0)
    matched = graph.op("Greater", scores, graph.constant(0.0))
    partners = graph.op("Where", matched, graph.op("ArgMax", assignment, axis=2, keepdims=0), graph.constant(-1))
    graph.output(assignment, "log_assignment", (1, "n0", "n1"))
    graph.output(partners, "matches", (1, "n0"), np.int64)
    graph.output(scores, "scores", (1, "n0"))
