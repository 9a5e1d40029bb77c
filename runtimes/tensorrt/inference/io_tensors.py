"""What an engine takes and gives, as TensorRT describes it, and whether that is what its metadata says."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import msgspec

from messages import EngineDeserializeError, TensorSpec
from messages.tensor import DType
from runtimes.inference_runtime import ProfileRange
from runtimes.tensorrt.bindings import Dims, Engine

_DTYPES: dict[str, DType] = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT64": "int64",
}
"""`DataType`s that NumPy has. BF16, FP8 and INT4 are not among them, and no array could hold such an output."""


class IoTensor(msgspec.Struct, frozen=True):
    """One input or output. `on_host` says that TensorRT reads or writes it in host memory: a shape's values.

    `values` are the least and greatest value of each element of such an input, as the profile has them.
    """

    name: str
    spec: TensorSpec
    is_input: bool
    on_host: bool = False
    values: tuple[tuple[int, ...], ...] = ()


def describe_io(trt: ModuleType, engine: Engine, subject: str) -> tuple[IoTensor, ...]:
    """All inputs and outputs in the engine's order, -1 for dynamic dimensions.

    Raises EngineDeserializeError for a type or memory layout that no array has, and for several profiles.
    """
    if engine.num_optimization_profiles != 1:
        raise EngineDeserializeError(
            f"{subject}: expected an engine with one optimisation profile, found {engine.num_optimization_profiles};"
            " compile it again"
        )
    tensors = (engine.get_tensor_name(index) for index in range(engine.num_io_tensors))
    return tuple(_describe(trt, engine, subject, name) for name in tensors)


def shape_of(dims: Dims) -> tuple[int, ...] | None:
    """None where TensorRT has no shape to give."""
    try:
        return tuple(int(dims[axis]) for axis in range(len(dims)))
    except ValueError:
        return None


def specs(tensors: tuple[IoTensor, ...], *, inputs: bool) -> dict[str, TensorSpec]:
    return {tensor.name: tensor.spec for tensor in tensors if tensor.is_input is inputs}


def differences(
    expected: Mapping[str, TensorSpec], found: Mapping[str, TensorSpec], profile: tuple[ProfileRange, ...] = ()
) -> list[str]:
    """Pure. In what an engine's tensors differ from what is expected of them, a text each.

    A dimension to which the profile leaves one size may be dynamic on one side and fixed on the other.
    """
    ranges = {name: (low, high) for name, low, _, high in profile}
    texts = [f"{name}: expected {expected[name]}, found none" for name in expected if name not in found]
    texts += [f"{name}: expected none, found {found[name]}" for name in found if name not in expected]
    for name in expected:
        if name in found and not _agree(expected[name], found[name], ranges.get(name)):
            texts.append(f"{name}: expected {expected[name]}, found {found[name]}")
    return texts


def _agree(one: TensorSpec, other: TensorSpec, allowed: tuple[tuple[int, ...], tuple[int, ...]] | None) -> bool:
    if one == other:
        return True
    if allowed is None or one.dtype != other.dtype or not len(one.shape) == len(other.shape) == len(allowed[0]):
        return False
    return all(
        a == b or ({a, b} == {-1, low} and low == high)
        for a, b, low, high in zip(one.shape, other.shape, *allowed, strict=True)
    )


def _describe(trt: ModuleType, engine: Engine, subject: str, name: str) -> IoTensor:
    kind = str(getattr(engine.get_tensor_dtype(name), "name", engine.get_tensor_dtype(name)))
    if kind not in _DTYPES:
        raise EngineDeserializeError(
            f"{subject}: {name} is {kind}, expected one of {', '.join(_DTYPES)}, which arrays have; export the model"
            " with a cast there"
        )
    if engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
        raise EngineDeserializeError(
            f"{subject}: {name} lies in memory as {engine.get_tensor_format(name)}, expected LINEAR, which arrays are;"
            " compile it again"
        )
    shape = shape_of(engine.get_tensor_shape(name))
    if shape is None:
        raise EngineDeserializeError(f"{subject}: TensorRT gives no shape of {name}; compile it again")
    is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
    on_host = engine.get_tensor_location(name) == trt.TensorLocation.HOST
    values: tuple[tuple[int, ...], ...] = ()
    if is_input and on_host:
        # By position: the bindings' keywords have their names exchanged.
        values = tuple(tuple(each) for each in engine.get_tensor_profile_values(0, name))
    return IoTensor(name, TensorSpec(shape, _DTYPES[kind]), is_input, on_host, values)
