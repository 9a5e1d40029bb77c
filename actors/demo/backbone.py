"""A place-recognition backbone: a vision transformer with generalised-mean pooling and one unit-length descriptor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.demo.onnx_graph import OnnxGraph, Value

if TYPE_CHECKING:
    import onnx

GEM_POWER = 3.0
RESIDUAL_GAIN = 0.3


@dataclass(frozen=True)
class BackboneSize:
    image_px: int
    patch_px: int
    width: int
    heads: int
    blocks: int
    descriptor: int


def backbone(size: BackboneSize) -> onnx.ModelProto:
    """`image [1, 3, image_px, image_px]`, normalised to zero mean -> `descriptor [1, descriptor]`."""
    graph = OnnxGraph("backbone")
    image = graph.input("image", (1, 3, size.image_px, size.image_px))
    grid = size.image_px // size.patch_px
    x = graph.conv(
        image, "patches", 3, size.width, kernel=size.patch_px, stride=size.patch_px, padding=0, gain=4.0, band_pass=True
    )
    x = graph.op("Transpose", graph.reshape(x, 1, size.width, grid * grid), perm=[0, 2, 1])
    class_token = graph.weight("class_token", graph.normal("class_token", (1, 1, size.width), deviation=0.5))
    x = graph.op("Concat", class_token, x, axis=1)
    positions = graph.normal("positions", (1, grid * grid + 1, size.width), deviation=0.02)
    x = graph.op("Add", x, graph.weight("positions", positions))
    for index in range(size.blocks):
        x = _block(graph, x, f"block{index}", size)
    x = graph.layer_norm(x, "norm", size.width)
    patches = graph.linear(graph.part(x, 1, grid * grid + 1, axis=1), "pool", size.width, size.descriptor)
    pooled = graph.layer_norm(_generalised_mean(graph, patches), "pool.norm", size.descriptor)
    # A class token that has learned nothing is nearly the same for all pictures, hence its small share.
    whole = graph.linear(graph.part(x, 0, 1, axis=1), "class", size.width, size.descriptor, gain=0.05)
    mixed = graph.linear(graph.op("Add", pooled, whole), "descriptor", size.descriptor, size.descriptor)
    descriptor = graph.reshape(graph.l2_normalise(mixed, axis=-1), 1, size.descriptor)
    graph.output(descriptor, "descriptor", (1, size.descriptor))
    return graph.model()


def _block(graph: OnnxGraph, x: Value, name: str, size: BackboneSize) -> Value:
    """Pre-norm: attention, then a perceptron four times as wide, each added to what came in."""
    width = size.width
    normed = graph.layer_norm(x, f"{name}.norm0", width)
    query, key, value = (
        graph.split_heads(graph.linear(normed, f"{name}.{part}", width, width), size.heads, width)
        for part in ("query", "key", "value")
    )
    mixed = graph.merge_heads(graph.attention(query, key, value, head_width=width // size.heads), width)
    x = graph.op("Add", x, graph.linear(mixed, f"{name}.mix", width, width, gain=RESIDUAL_GAIN))
    hidden = graph.gelu(graph.linear(graph.layer_norm(x, f"{name}.norm1", width), f"{name}.expand", width, 4 * width))
    return graph.op("Add", x, graph.linear(hidden, f"{name}.contract", 4 * width, width, gain=RESIDUAL_GAIN))


def _generalised_mean(graph: OnnxGraph, tokens: Value) -> Value:
    """`[1, n, width] -> [1, 1, width]`: between the mean (power 1) and the maximum (power infinite)."""
    positive = graph.op("Add", graph.op("Relu", tokens), graph.constant(1e-3))
    mean = graph.op("ReduceMean", graph.op("Pow", positive, graph.constant(GEM_POWER)), axes=[1], keepdims=1)
    return graph.op("Pow", mean, graph.constant(1.0 / GEM_POWER))
