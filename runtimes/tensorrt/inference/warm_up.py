"""The shapes that an engine runs at before it flies: least, usual and greatest of its profile. Pure.

CUDA loads kernels when they first run, and a context sets itself up at its first shapes: both would land in a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from runtimes.inference_runtime import ProfileRange
from runtimes.tensorrt.inference.io_tensors import IoTensor

_POINTS = ("min", "opt", "max")


class WarmUp(NamedTuple):
    """`point` is min, opt or max."""

    point: str
    inputs: dict[str, np.ndarray]


def warm_ups(io: tuple[IoTensor, ...], profile: tuple[ProfileRange, ...]) -> Iterator[WarmUp]:
    """Inputs for each point of the profile; for one only where all are the same. They hold zeros, and shapes' values
    hold the profile's own.
    """
    done: list[dict[str, tuple[int, ...]]] = []
    for index, point in enumerate(_POINTS):
        shapes = shapes_at(io, profile, index)
        if shapes in done and not any(tensor.values for tensor in io):
            continue
        done.append(shapes)
        yield WarmUp(point, {tensor.name: _filled(tensor, shapes, index) for tensor in io if tensor.is_input})


def shapes_at(io: tuple[IoTensor, ...], profile: tuple[ProfileRange, ...], index: int) -> dict[str, tuple[int, ...]]:
    """All inputs' shapes at the least (0), usual (1) or greatest (2) point."""
    ranges: Mapping[str, tuple[tuple[int, ...], ...]] = {name: tuple(of_each) for name, *of_each in profile}
    return {
        tensor.name: ranges[tensor.name][index] if tensor.name in ranges else tensor.spec.shape
        for tensor in io
        if tensor.is_input
    }


def _filled(tensor: IoTensor, shapes: Mapping[str, tuple[int, ...]], index: int) -> np.ndarray:
    shape = shapes[tensor.name]
    if tensor.values:
        return np.array(tensor.values[index], tensor.spec.dtype).reshape(shape)
    return np.zeros(shape, tensor.spec.dtype)
