"""Which layers the ONNX parser makes of one node, and which of them it names after it.

By onnxOpImporters.cpp and importerUtils.cpp of onnx/onnx-tensorrt (10.1-GA; the same in its main branch): an importer
that calls `registerLayer(layer, node)` gives the layer the node's name, made unique, and the metadata
`[ONNX Layer: NODE]`. Several layers never come there, and are `(Unnamed Layer* N) [Kind]` without metadata: the square
in ReduceSumSquare and ReduceL2, the logarithm in LogSoftmax, the shuffle after a softmax.
"""

from __future__ import annotations

from typing import NamedTuple

from ..enums import LayerType as L


class Made(NamedTuple):
    """One layer of a node. `is_registered`: it has the node's name and metadata."""

    kind: L
    is_registered: bool = True


_ONE = {
    L.ACTIVATION: "Clip Elu Gelu HardSigmoid HardSwish LeakyRelu Relu Selu Sigmoid Softplus Softsign Tanh",
    L.CAST: "Cast",
    L.CONCATENATION: "Concat",
    L.CONVOLUTION: "Conv",
    L.DECONVOLUTION: "ConvTranspose",
    L.DEQUANTIZE: "DequantizeLinear",
    L.EINSUM: "Einsum",
    L.ELEMENTWISE: "Add And Div Equal Greater Less Max Min Mod Mul Or Pow Sub Sum",
    L.FILL: "ConstantOfShape Range",
    L.GATHER: "Gather GatherElements GatherND",
    L.GRID_SAMPLE: "GridSample",
    L.IDENTITY: "Dropout Identity",
    L.LRN: "LRN",
    L.MATRIX_MULTIPLY: "MatMul",
    L.NON_ZERO: "NonZero",
    L.NORMALIZATION: "GroupNormalization InstanceNormalization LayerNormalization",
    L.PARAMETRIC_RELU: "PRelu",
    L.POOLING: "AveragePool MaxPool",
    L.QUANTIZE: "QuantizeLinear",
    L.REDUCE: "GlobalAveragePool GlobalMaxPool ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum",
    L.RESIZE: "Resize",
    L.SCALE: "BatchNormalization",
    L.SCATTER: "ScatterElements ScatterND",
    L.SELECT: "Where",
    L.SHAPE: "Shape",
    L.SHUFFLE: "Flatten Reshape Squeeze Transpose Unsqueeze",
    L.SLICE: "Expand Pad Slice Split Tile",
    L.TOPK: "TopK",
    L.UNARY: "Abs Ceil Cos Erf Exp Floor Log Neg Not Reciprocal Sign Sin Sqrt",
}
LAYERS: dict[str, tuple[Made, ...]] = {
    operator: (Made(kind),) for kind, operators in _ONE.items() for operator in operators.split()
} | {
    "ArgMax": (Made(L.TOPK), Made(L.SHUFFLE, False)),
    "ArgMin": (Made(L.TOPK), Made(L.SHUFFLE, False)),
    "Constant": (),
    "Gemm": (Made(L.MATRIX_MULTIPLY), Made(L.ELEMENTWISE)),
    "LogSoftmax": (Made(L.SOFTMAX), Made(L.UNARY, False), Made(L.SHUFFLE, False)),
    "ReduceL2": (Made(L.ELEMENTWISE, False), Made(L.REDUCE), Made(L.UNARY)),
    "ReduceSumSquare": (Made(L.ELEMENTWISE, False), Made(L.REDUCE)),
    "DepthToSpace": (Made(L.SHUFFLE), Made(L.SHUFFLE, False)),
    "SpaceToDepth": (Made(L.SHUFFLE), Made(L.SHUFFLE, False)),
    "Softmax": (Made(L.SOFTMAX), Made(L.SHUFFLE, False)),
}

WEIGHTS_INSIDE = ("Conv", "ConvTranspose", "BatchNormalization", "Resize", "Reshape", "Slice", "Expand", "Pad", "Tile")
"""Operators whose constant inputs are part of the layer; others get a constant layer for each (`convertToTensor`)."""

SHAPE_INPUTS = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Tile": (1,),
}
"""Inputs whose values decide a shape: what they are computed from are shape tensors ("Shape tensors are tensors that
contribute to shape calculations in some way", `NvInferRuntime.h` of 10.3)."""

KIND_NAMES = {
    L.CONSTANT: "Constant",
    L.ELEMENTWISE: "ElementWise",
    L.SHUFFLE: "Shuffle",
    L.UNARY: "Unary",
}
