"""What an engine takes, checked by name before the engine sees anything. Pure functions; callable from any thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np

from messages import DTYPES, EngineBuildError, InvalidInputError, Tensor, TensorSpec, dtype_name
from runtimes.inference_runtime import ProfileRange

UNBOUNDED = 2**63 - 1
"""The maximum of a dimension that has none."""

DimensionNames = Mapping[str, tuple[str, ...]]
"""For each input the names of its dimensions, "" for one without. Dimensions of one name have one size."""

_NO_NAMES: DimensionNames = MappingProxyType({})


def check_inputs(
    model: str,
    specs: Mapping[str, TensorSpec],
    profile: tuple[ProfileRange, ...],
    inputs: Mapping[str, Tensor],
    *,
    dimension_names: DimensionNames = _NO_NAMES,
    host_only: bool = False,
) -> None:
    """Compare inputs with what the engine takes: names, dtypes, shapes, profile ranges, sizes that must agree.

    `host_only` refuses everything but NumPy arrays. Raises InvalidInputError that names each wrong tensor with what
    was expected and found.
    """
    ranges = {name: (low, high) for name, low, _, high in profile}
    faults = [f"input {name} is unknown: expected {_listed(specs)}" for name in inputs if name not in specs]
    for name, spec in specs.items():
        allowed = ranges.get(name)
        if name not in inputs:
            faults.append(f"input {name} is missing: expected {describe_range(spec, allowed)}, found {_listed(inputs)}")
        elif not _fits(inputs[name], spec, allowed, host_only=host_only):
            found = _describe(inputs[name], host_only=host_only)
            faults.append(f"input {name}: expected {describe_range(spec, allowed)}, found {found}")
    if not faults:
        faults.extend(_disagreements(inputs, dimension_names))
    if faults:
        raise InvalidInputError(f"{model}: " + "; ".join(faults))


def check_tensors(model: str, inputs: Mapping[str, Tensor]) -> None:
    """Of inputs that nobody has described only whether they are tensors that an engine could take.

    Raises InvalidInputError that names each one that is not.
    """
    faults = [
        f"input {name}: expected a tensor of a dtype that engines take, found {_describe(tensor, host_only=False)}"
        for name, tensor in inputs.items()
        if not isinstance(tensor, Tensor) or dtype_name(tensor.dtype) not in DTYPES
    ]
    if faults:
        raise InvalidInputError(f"{model}: " + "; ".join(faults))


def check_profile(
    model: str,
    specs: Mapping[str, TensorSpec],
    profile: tuple[ProfileRange, ...],
    *,
    limits: tuple[ProfileRange, ...] = (),
    every_dynamic_input: bool = False,
) -> None:
    """Compare the profile that a person wrote with what the model takes.

    `limits` are ranges that the model itself declares. Raises EngineBuildError for an input that is not there or
    named twice, a range that contradicts the model, and, with `every_dynamic_input`, a dynamic input without one.
    """
    declared = {name: (low, high) for name, low, _, high in limits}
    seen: set[str] = set()
    for name, low, opt, high in profile:
        if name not in specs:
            raise EngineBuildError(f"{model}: the profile names input {name}, expected {_listed(specs)}")
        if name in seen:
            raise EngineBuildError(f"{model}: the profile names input {name} twice; one profile covers all inputs")
        seen.add(name)
        spec = specs[name]
        shapes = f"min {list(low)}, opt {list(opt)}, max {list(high)}"
        expected = describe_range(spec, declared.get(name))
        if not all(_shape_fits(shape, spec.shape, declared.get(name)) for shape in (low, opt, high)):
            raise EngineBuildError(f"{model}: the profile of input {name} is {shapes}, expected within {expected}")
        if not all(a <= b <= c for a, b, c in zip(low, opt, high, strict=True)):
            raise EngineBuildError(f"{model}: the profile of input {name} is {shapes}, expected min <= opt <= max")
    bare = [name for name, spec in specs.items() if -1 in spec.shape and name not in seen]
    if every_dynamic_input and bare:
        raise EngineBuildError(
            f"{model}: no profile for {', '.join(f'{name} {specs[name]}' for name in bare)};"
            " every input with a dynamic dimension needs min, opt and max shapes"
        )


def describe_range(spec: TensorSpec, allowed: tuple[tuple[int, ...], tuple[int, ...]] | None) -> str:
    """`float32[1..16, 3, ?]`: what a tensor may be."""
    if allowed is None:
        return str(spec)
    extents = (_extent(low, high) for low, high in zip(*allowed, strict=True))
    return f"{spec.dtype}[{', '.join(extents)}]"


def _extent(low: int, high: int) -> str:
    if low == high:
        return str(low)
    return f"{low}.." if high >= UNBOUNDED else f"{low}..{high}"


def _fits(
    tensor: object, spec: TensorSpec, allowed: tuple[tuple[int, ...], tuple[int, ...]] | None, *, host_only: bool
) -> bool:
    if isinstance(tensor, np.ndarray):
        if not tensor.dtype.isnative:
            return False  # ONNX Runtime 1.31 reads foreign-endian bytes as native ones, and says nothing
    elif host_only or not isinstance(tensor, Tensor):
        return False
    if dtype_name(tensor.dtype) != spec.dtype:
        return False
    return _shape_fits(tuple(tensor.shape), spec.shape, allowed)


def _shape_fits(
    shape: tuple[int, ...], pattern: tuple[int, ...], allowed: tuple[tuple[int, ...], tuple[int, ...]] | None
) -> bool:
    if len(shape) != len(pattern):
        return False
    if shape != pattern and any(extent not in (size, -1) for size, extent in zip(shape, pattern, strict=True)):
        return False
    return allowed is None or all(low <= size <= high for size, low, high in zip(shape, *allowed, strict=True))


def _disagreements(inputs: Mapping[str, Tensor], dimension_names: DimensionNames) -> Iterator[str]:
    first: dict[str, tuple[str, int]] = {}
    for tensor_name, names in dimension_names.items():
        for axis, name in enumerate(names):
            if not name:
                continue
            size = int(inputs[tensor_name].shape[axis])
            where, expected = first.setdefault(name, (f"{tensor_name} axis {axis}", size))
            if size != expected:
                yield f"input {tensor_name} axis {axis} ({name}): expected {expected} as in {where}, found {size}"


def _describe(value: object, *, host_only: bool) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}, which is no tensor"
    if isinstance(value, np.ndarray):
        kind = "" if value.dtype.isnative else " of foreign byte order"
    else:
        kind = f" as {type(value).__module__}.{type(value).__name__}"
        kind += "; give a NumPy array" if host_only else ""
    name = dtype_name(value.dtype)
    text = str(TensorSpec(tuple(value.shape), name)) if name in DTYPES else f"{name}{list(value.shape)}"  # type: ignore[arg-type]
    return text + kind


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(names) if names else "none"
