"""What TensorRT's engine inspector says of an engine, in the form of the examples that NVIDIA publishes
(tools/experimental/trt-engine-explorer/examples, tag v10.3.0).
"""

from __future__ import annotations

import json
from typing import Any

from ..enums import DataType, LayerType, ProfilingVerbosity
from .network import INetworkDefinition, ITensor
from .tactics import QUANTIZING, EngineLayer

_FORMATS = {
    DataType.FLOAT: "Row major linear FP32",
    DataType.HALF: "Row major linear FP16 format",
    DataType.BF16: "Row major linear BF16 format",
    DataType.INT8: "Row major Int8 format",
    DataType.UINT8: "Row major linear UInt8 format",
    DataType.INT32: "Row major linear INT32",
    DataType.INT64: "Row major linear Int64",
    DataType.BOOL: "Row major linear Bool",
}
_PACKED_FORMATS = {
    DataType.HALF: "Channel major FP16 format where channel % 8 == 0",
    DataType.INT8: "Thirty-two wide channel vectorized row major Int8 format",
}
_KINDS = {
    LayerType.CONVOLUTION: "CaskConvolution",
    LayerType.DECONVOLUTION: "CaskDeconvolution",
    LayerType.MATRIX_MULTIPLY: "CublasConvolution",
    LayerType.POOLING: "CudaPooling",
    LayerType.SOFTMAX: "CudaSoftMax",
    LayerType.IDENTITY: "Reformat",
    LayerType.CAST: "Reformat",
    LayerType.QUANTIZE: "Reformat",
    LayerType.DEQUANTIZE: "Reformat",
    LayerType.ACTIVATION: "PointWiseV2",
    LayerType.ELEMENTWISE: "PointWiseV2",
    LayerType.UNARY: "PointWiseV2",
}
_COMPUTED = (*_PACKED_FORMATS, DataType.FLOAT, DataType.BF16)


def describe(network: INetworkDefinition, layers: list[EngineLayer], verbosity: ProfilingVerbosity) -> str:
    """With details, names alone, or nothing, as the configuration asked for."""
    stored: dict[str, DataType] = {tensor.name: tensor.dtype for tensor in network._inputs}
    described: list[dict[str, Any]] = []
    for layer in layers:
        described += _reformats(layer, stored)
        described.append(_layer(layer, stored))
    described += _last_reformats(network, stored)
    names = [tensor.name for tensor in (*network._inputs, *network._outputs)]
    shown: list[Any] = {
        ProfilingVerbosity.DETAILED: described,
        ProfilingVerbosity.LAYER_NAMES_ONLY: [each["Name"] for each in described],
        ProfilingVerbosity.NONE: [],
    }[verbosity]
    return json.dumps({"Layers": shown, "Bindings": names if verbosity is not ProfilingVerbosity.NONE else []})


def _reads(layer: EngineLayer, tensor: ITensor, stored: dict[str, DataType]) -> DataType:
    """What a layer wants a tensor in: floating ones in what it computes in, all others as they are."""
    own = stored.get(tensor.name, tensor.dtype)
    moves = layer.kind in (*QUANTIZING, LayerType.IDENTITY, LayerType.CAST)
    return layer.computes_in if own in _COMPUTED and layer.computes_in in _COMPUTED and not moves else own


def _reformats(layer: EngineLayer, stored: dict[str, DataType]) -> list[dict[str, Any]]:
    made = []
    for index, tensor in enumerate(layer.inputs):
        own, wanted = stored.get(tensor.name, tensor.dtype), _reads(layer, tensor, stored)
        if own is not wanted:
            made.append(
                _reformat(
                    f"Reformatting CopyNode for Input Tensor {index} to {layer.name}",
                    _tensor(tensor, own),
                    _tensor(tensor, wanted, f"Reformatted Input Tensor {index} to {layer.name}"),
                )
            )
    return made


def _layer(layer: EngineLayer, stored: dict[str, DataType]) -> dict[str, Any]:
    inputs = [_tensor(tensor, _reads(layer, tensor, stored)) for tensor in layer.inputs]
    for tensor in layer.outputs:
        # An int8 layer between floating ones gives what it took where the next one wants it: int8, unless the network
        # is typed otherwise by a quantisation that was taken in.
        is_quantized = layer.computes_in is DataType.INT8 and layer.inputs and layer.inputs[0].dtype is DataType.INT8
        stored[tensor.name] = tensor.dtype if is_quantized or layer.kind in QUANTIZING else layer.computes_in
    described = {
        "Name": layer.name,
        "LayerType": _KINDS.get(layer.kind, layer.kind.name.replace("_", " ").title().replace(" ", "")),
        "Inputs": inputs,
        "Outputs": [_tensor(tensor, stored[tensor.name]) for tensor in layer.outputs],
        "ParameterType": layer.kind.name.title(),
        "TacticValue": "0x0000000000000000",
        "Metadata": "\x1e".join(part.metadata for part in layer.parts if part.metadata),
    }
    if layer.kind in QUANTIZING:
        described["Origin"] = "QDQ"
    return described


def _last_reformats(network: INetworkDefinition, stored: dict[str, DataType]) -> list[dict[str, Any]]:
    """Outputs keep the type that the network says."""
    return [
        _reformat(
            f"Reformatting CopyNode for Output Tensor {index}",
            _tensor(tensor, stored[tensor.name], f"Reformatted Output Tensor {index}"),
            _tensor(tensor, tensor.dtype),
        )
        for index, tensor in enumerate(network._outputs)
        if stored.get(tensor.name, tensor.dtype) is not tensor.dtype
    ]


def _reformat(name: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {
        "Name": name,
        "LayerType": "Reformat",
        "Inputs": [before],
        "Outputs": [after],
        "ParameterType": "Reformat",
        "Origin": "REFORMAT",
        "TacticValue": "0x00000000000003e8",
    }


def _tensor(tensor: ITensor, dtype: DataType, name: str = "") -> dict[str, Any]:
    formats = _PACKED_FORMATS if len(tensor._shape) == 4 else {}
    return {
        "Name": name or tensor.name,
        "Location": "Device",
        "Dimensions": list(tensor._shape),
        "Format/Datatype": formats.get(dtype, _FORMATS[dtype]),
    }
