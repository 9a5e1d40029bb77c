"""A keypoint extractor after XFeat: a pyramid of convolutions, a 65-channel keypoint head, 64 numbers a keypoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actors.demo.onnx_graph import OnnxGraph, Value

if TYPE_CHECKING:
    import onnx

CELL_PX = 8
"""A cell of this side has one descriptor, and one softmax over its 64 pixels and a dustbin."""
SUPPRESSION_PX = 5
FLOAT32 = 1
"""`onnx.TensorProto.FLOAT`."""


@dataclass(frozen=True)
class ExtractorSize:
    """`image_px` is a multiple of 16; `channels` is the width of the first layer."""

    image_px: int
    channels: int
    descriptor: int
    keypoints: int


def extractor(size: ExtractorSize) -> onnx.ModelProto:
    """`image [1, 3, image_px, image_px]` -> the strongest keypoints, strongest first.

    `keypoints [1, K, 2]` are (x, y) in pixels, `descriptors [1, K, descriptor]` have unit length, `scores [1, K]`.
    """
    graph = OnnxGraph("extractor")
    image = graph.input("image", (1, 3, size.image_px, size.image_px))
    grey = graph.instance_norm(graph.op("ReduceMean", image, axes=[1], keepdims=1))
    dense = _dense_descriptors(graph, grey, size)
    heat = graph.op("Mul", _keypoint_heat(graph, grey), _reliability(graph, dense, size))
    keypoints, scores = _strongest(graph, heat, size)
    graph.output(keypoints, "keypoints", (1, size.keypoints, 2))
    graph.output(_sample(graph, dense, keypoints, size), "descriptors", (1, size.keypoints, size.descriptor))
    graph.output(scores, "scores", (1, size.keypoints))
    return graph.model()


def _layer(graph: OnnxGraph, x: Value, name: str, inputs: int, outputs: int, *, kernel: int = 3) -> Value:
    """Random filters have no learned statistics to fold, so each layer is normalised by the picture's own."""
    return graph.op("Relu", graph.instance_norm(graph.conv(x, name, inputs, outputs, kernel=kernel)))


def _dense_descriptors(graph: OnnxGraph, grey: Value, size: ExtractorSize) -> Value:
    """`[1, descriptor, H / 8, W / 8]`: an eighth of the extent plus what a sixteenth sees around it."""
    first, wide = size.channels, size.descriptor
    x = graph.conv(grey, "stem", 1, first, kernel=5, band_pass=True)
    x = graph.halve(graph.op("Relu", graph.instance_norm(x)), first)
    x = graph.halve(_layer(graph, x, "half", first, 2 * first), 2 * first)
    x = graph.halve(_layer(graph, x, "quarter", 2 * first, 4 * first), 4 * first)
    eighth = _layer(graph, x, "eighth", 4 * first, wide)
    sixteenth = _layer(graph, graph.halve(eighth, wide), "sixteenth", wide, wide)
    fused = graph.op("Add", eighth, _enlarge(graph, sixteenth, 2))
    return graph.instance_norm(graph.conv(fused, "fusion", wide, wide, kernel=1))


def _keypoint_heat(graph: OnnxGraph, grey: Value) -> Value:
    """`[1, 1, H, W]`: the chance of each pixel within its cell; the 65th channel says that there is no keypoint.

    The head adds little to the local contrast that it starts from: a random head marks other pixels as soon as the
    picture shifts against the cells.
    """
    edges = graph.op("Abs", graph.conv(grey, "contrast", 1, 8, kernel=5, band_pass=True))
    edges = graph.op("Abs", graph.conv(edges, "contrast.1", 8, 8, band_pass=True))
    saliency = graph.instance_norm(graph.op("ReduceMean", edges, axes=[1], keepdims=1))
    saliency = graph.op("Mul", saliency, graph.constant(2.0))
    cells = graph.op("SpaceToDepth", saliency, blocksize=CELL_PX)
    pixels = CELL_PX * CELL_PX
    hidden = graph.op("Relu", graph.conv(cells, "keypoint", pixels, pixels, kernel=1))
    cells = graph.op("Add", cells, graph.conv(hidden, "keypoint.1", pixels, pixels, kernel=1, gain=0.05))
    dustbin = graph.conv(hidden, "dustbin", pixels, 1, kernel=1, gain=0.05)
    chances = graph.op("Softmax", graph.op("Concat", cells, dustbin, axis=1), axis=1)
    return graph.op("DepthToSpace", graph.part(chances, 0, pixels, axis=1), blocksize=CELL_PX, mode="CRD")


def _reliability(graph: OnnxGraph, dense: Value, size: ExtractorSize) -> Value:
    """`[1, 1, H, W]`: how far the descriptor under a pixel is to be trusted."""
    coarse = graph.op("Sigmoid", graph.conv(dense, "reliability", size.descriptor, 1, kernel=1, gain=0.25))
    return _enlarge(graph, coarse, CELL_PX)


def _enlarge(graph: OnnxGraph, x: Value, times: int) -> Value:
    return graph.op("Resize", x, "", graph.constant(np.array([1.0, 1.0, times, times])), mode="linear")


def _strongest(graph: OnnxGraph, heat: Value, size: ExtractorSize) -> tuple[Value, Value]:
    """Local maxima only, then the K hottest of them."""
    reach = SUPPRESSION_PX // 2
    window = [SUPPRESSION_PX, SUPPRESSION_PX]
    peak = graph.op("MaxPool", heat, kernel_shape=window, strides=[1, 1], pads=[reach] * 4)
    peaks = graph.op("Where", graph.op("Equal", heat, peak), heat, graph.constant(0.0))
    flat = graph.reshape(peaks, 1, size.image_px * size.image_px)
    scores, index = graph.ops("TopK", 2, flat, graph.constant(np.array([size.keypoints])), axis=-1)
    width = graph.constant(np.int64(size.image_px))
    column, row = (graph.reshape(graph.op(op, index, width), 1, size.keypoints, 1) for op in ("Mod", "Div"))
    return graph.op("Cast", graph.op("Concat", column, row, axis=2), to=FLOAT32), scores


def _sample(graph: OnnxGraph, dense: Value, keypoints: Value, size: ExtractorSize) -> Value:
    """Descriptors between the cells' centres, by bilinear interpolation, brought to unit length."""
    centres = graph.op("Mul", graph.op("Add", keypoints, graph.constant(0.5)), graph.constant(2.0 / size.image_px))
    places = graph.reshape(graph.op("Sub", centres, graph.constant(1.0)), 1, 1, size.keypoints, 2)
    sampled = graph.op("GridSample", dense, places, mode="bilinear", padding_mode="border", align_corners=0)
    rows = graph.op("Transpose", graph.reshape(sampled, 1, size.descriptor, size.keypoints), perm=[0, 2, 1])
    return graph.l2_normalise(rows, axis=-1)
