"""In which type each layer of an engine computes, and which layers become one.

`NvInfer.h` of 10.3: a flag is a permission ("Enable FP16 layer selection, with FP32 fallback"), a precision that was
set counts with OBEY_PRECISION_CONSTRAINTS ("Require that layers execute in specified precisions. Build fails
otherwise") or PREFER, and in a strongly typed network "Every tensor in the network has a data type defined in the
network".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..core import CORE
from ..enums import BuilderFlag, DataType, LayerType
from .builder_config import IBuilderConfig
from .calibration import Scales
from .network import FLOATING, ILayer, INetworkDefinition, ITensor

_INT8_KINDS = (
    LayerType.ACTIVATION,
    LayerType.CONVOLUTION,
    LayerType.DECONVOLUTION,
    LayerType.ELEMENTWISE,
    LayerType.MATRIX_MULTIPLY,
    LayerType.POOLING,
)
_PERMISSIONS = {DataType.HALF: BuilderFlag.FP16, DataType.INT8: BuilderFlag.INT8, DataType.BF16: BuilderFlag.BF16}
QUANTIZING = (LayerType.QUANTIZE, LayerType.DEQUANTIZE)


class NoImplementationError(Exception):
    """No tactic is left for a layer: NVIDIA/TensorRT#2681 has the words."""


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine: layers of the network that became one, and what they compute in."""

    parts: tuple[ILayer, ...]
    computes_in: DataType
    inputs: tuple[ITensor, ...]
    outputs: tuple[ITensor, ...]

    @property
    def kind(self) -> LayerType:
        return self.parts[0].type

    @property
    def name(self) -> str:
        return " + ".join(part.name for part in self.parts)


def choose(network: INetworkDefinition, config: IBuilderConfig, scales: Scales | None) -> list[EngineLayer]:
    """The layers of the engine in order, without what is constant. `scales` is None where the build needs none.

    Raises NoImplementationError where a precision that must be obeyed is not allowed by any flag.
    """
    constant = _constant_tensors(network)
    live = [layer for layer in network._layers if not all(each.name in constant for each in layer._outputs)]
    quantized = {layer._outputs[0].name: layer._inputs[0] for layer in live if layer.type is LayerType.DEQUANTIZE}
    users = Counter(tensor.name for layer in live for tensor in layer._inputs)
    chosen: list[EngineLayer] = []
    absorbed: Counter[str] = Counter()
    done: set[int] = set()
    for index, layer in enumerate(live):
        if index in done:
            continue
        parts = [layer]
        follower = _fusable(live, index, users, network)
        if follower is not None:
            parts.append(live[follower])
            done.add(follower)
        inputs = tuple(tensor for tensor in layer._inputs if tensor.name not in constant)
        if layer.type in _INT8_KINDS and inputs and all(tensor.name in quantized for tensor in inputs):
            # TensorRT takes a dequantisation into the layer that it feeds, which then computes on int8.
            absorbed.update(tensor.name for tensor in inputs)
            inputs = tuple(quantized[tensor.name] for tensor in inputs)
            computes_in = DataType.INT8
        else:
            computes_in = _type_of(layer, network, config, scales)
        chosen.append(EngineLayer(tuple(parts), computes_in, inputs, parts[-1]._outputs))
    return [each for each in chosen if not _is_taken(each, absorbed, users, network)]


def unscaled_tensors(network: INetworkDefinition, scales: Scales) -> list[str]:
    """The tensors for want of whose scale a layer cannot compute in int8. Calibration gives constants none: 10.x warns
    of each after a whole calibration (NVIDIA/TensorRT#4058).
    """
    touched = (
        tensor.name
        for layer in network._layers
        if layer.type in _INT8_KINDS and not layer.precision_is_set
        for tensor in (*layer._inputs, *layer._outputs)
        if tensor.dtype in FLOATING
    )
    return [name for name in dict.fromkeys(touched) if not scales.get(name)]


def is_quantized(network: INetworkDefinition) -> bool:
    return any(layer.type in QUANTIZING for layer in network._layers)


def _type_of(layer: ILayer, network: INetworkDefinition, config: IBuilderConfig, scales: Scales | None) -> DataType:
    own = layer._outputs[0].dtype
    if network._typed() or own not in FLOATING:
        return own
    obey = config.get_flag(BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    if layer.precision_is_set and (obey or config.get_flag(BuilderFlag.PREFER_PRECISION_CONSTRAINTS)):
        needed = _PERMISSIONS.get(layer.precision)
        if needed is None or config.get_flag(needed):
            return layer.precision
        if obey:
            raise NoImplementationError(
                f"Could not find any implementation for node {layer.name}: {layer.precision.name} needs the flag"
                f" {needed.name}."
            )
    tensors = (*layer._inputs, *layer._outputs)
    if (
        config.get_flag(BuilderFlag.INT8)
        and "INT8" not in CORE.slow_types
        and scales is not None
        and layer.type in _INT8_KINDS
        and all(scales.get(each.name) for each in tensors if each.dtype in FLOATING)
    ):
        return DataType.INT8
    if config.get_flag(BuilderFlag.FP16) and "HALF" not in CORE.slow_types:
        return DataType.HALF
    return own


def _constant_tensors(network: INetworkDefinition) -> set[str]:
    """What is known when the engine is built, quantised weights among it: it is folded away."""
    found: set[str] = set()
    for layer in network._layers:
        if all(each.name in found for each in layer._inputs):
            found.update(each.name for each in layer._outputs)
    return found


def _fusable(live: list[ILayer], index: int, users: Counter[str], network: INetworkDefinition) -> int | None:
    """The activation that a convolution takes in, as in "Conv_0 + Relu_1" of the published examples."""
    layer = live[index]
    output = layer._outputs[0]
    if layer.type is not LayerType.CONVOLUTION or users[output.name] != 1 or output.is_network_output:
        return None
    for position in range(index + 1, len(live)):
        after = live[position]
        if output in after._inputs:
            is_free = after.type is LayerType.ACTIVATION and not after.precision_is_set and not layer.precision_is_set
            return position if is_free else None
    return None


def _is_taken(layer: EngineLayer, absorbed: Counter[str], users: Counter[str], network: INetworkDefinition) -> bool:
    output = layer.outputs[0]
    is_whole = absorbed[output.name] == users[output.name] and not output.is_network_output
    return layer.kind is LayerType.DEQUANTIZE and is_whole
