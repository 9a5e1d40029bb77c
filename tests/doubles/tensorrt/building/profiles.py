"""The ranges of an engine's inputs, checked against its network, and the memory that they come to."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..plan import Shape
from .builder_config import IBuilderConfig, IOptimizationProfile
from .network import INetworkDefinition, ITensor

_ALIGNMENT_BYTES = 512


class InvalidProfileError(Exception):
    """What the network wants of a profile that none has."""


Ranges = tuple[tuple[str, Shape, Shape, Shape], ...]


def checked_profiles(network: INetworkDefinition, config: IBuilderConfig) -> tuple[Ranges, ...]:
    """The ranges of the dynamic inputs, by profile. "A full validation is performed at engine build time"
    (setDimensions, `NvInferRuntime.h` of 10.3), by its conditions (1) to (3).

    Raises InvalidProfileError, the first one in the words of 10.0 on an Orin (daniel89710/trt-depth-anything#1).
    """
    dynamic = [tensor for tensor in network._inputs if -1 in tensor._shape]
    if dynamic and not config._profiles:
        raise InvalidProfileError("Network has dynamic or shape inputs, but no optimization profile has been defined.")
    return tuple(_ranges(network, dynamic, profile, index) for index, profile in enumerate(config._profiles)) or ((),)


def calibration_shapes(network: INetworkDefinition, config: IBuilderConfig) -> dict[str, Shape]:
    """setCalibrationProfile: "MIN and MAX values will be overwritten by kOPT". Without one the first profile counts."""
    profile = config._calibration_profile or next(iter(config._profiles), None)
    known = {} if profile is None else {name: held["opt"] for name, held in profile._shapes.items()}
    return {tensor.name: known.get(tensor.name, tensor._shape) for tensor in network._inputs}


def activation_bytes(model: bytes, profiles: tuple[Ranges, ...]) -> int:
    """What lies between the inputs and outputs at the largest shapes, all of it at once: each tensor rounded up."""
    import onnx

    largest = 0
    for ranges in profiles:
        proto = onnx.load_model_from_string(model)
        _fix(proto, {name: most for name, _, _, most in ranges})
        typed = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
        sizes = (
            math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.dim_value > 0) * 4
            for value in typed.value_info
        )
        largest = max(largest, sum(math.ceil(size / _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES for size in sizes))
    return max(largest, _ALIGNMENT_BYTES)


def _fix(proto: object, shapes: Mapping[str, Shape]) -> None:
    for value in proto.graph.input:  # type: ignore[attr-defined]
        for dim, extent in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = extent


def _ranges(network: INetworkDefinition, dynamic: list[ITensor], profile: IOptimizationProfile, index: int) -> Ranges:
    for tensor in network._inputs:
        for selector, shape in profile._shapes.get(tensor.name, {}).items():
            _refuse_another(tensor, selector, shape, index)
    missing = [tensor.name for tensor in dynamic if tensor.name not in profile._shapes]
    if missing:
        raise InvalidProfileError(f"{missing[0]}: optimization profile is missing values for shape or input")
    held = [(tensor.name, profile._shapes[tensor.name]) for tensor in dynamic]
    return tuple((name, shapes["min"], shapes["opt"], shapes["max"]) for name, shapes in held)


def _refuse_another(tensor: ITensor, selector: str, shape: Shape, index: int) -> None:
    if len(shape) != len(tensor._shape) or any(
        own not in (-1, extent) for own, extent in zip(tensor._shape, shape, strict=False)
    ):
        raise InvalidProfileError(
            f"{tensor.name}: k{selector.upper()} dimensions in profile {index} are {list(shape)}, which do not match"
            f" {list(tensor._shape)} of the network"
        )
