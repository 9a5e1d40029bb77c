"""Arrays for the engines here, on both sides, and how near to ONNX Runtime fp16 has to come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from messages import Tensor
from runtimes.cuda.port import Cuda
from runtimes.cuda.release import release_all
from runtimes.tensorrt.inference.device_tensors import BorrowedTensor, DeviceTensor

Arrays = dict[str, np.ndarray[Any, Any]]
FP16_TOLERANCE = 4e-3
"""Four units in the last of fp16's 11 bits, for sums in another order."""


def rows(count: int) -> Arrays:
    random = np.random.default_rng(count)
    return {
        "x": random.normal(size=(count, 3)).astype(np.float16),
        "scale": np.array([1, -2, 0.5], np.float16),
    }


def assert_near(found: Mapping[str, Tensor], expected: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """The same names in the same order, shapes and types, and values as near as fp16 allows; integers the same."""
    assert [*found] == [*expected]
    for name, array in expected.items():
        came_out = found[name]
        assert isinstance(came_out, np.ndarray)
        assert (came_out.dtype, came_out.shape) == (array.dtype, array.shape)
        np.testing.assert_allclose(came_out, array, rtol=FP16_TOLERANCE, atol=FP16_TOLERANCE)


def to_device(cuda: Cuda, arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Tensor]:
    return {name: _to_device(cuda, np.ascontiguousarray(array)) for name, array in arrays.items()}


def to_host(cuda: Cuda, tensors: Mapping[str, Tensor]) -> Arrays:
    return {name: _to_host(cuda, name, tensor) for name, tensor in tensors.items()}


def _to_device(cuda: Cuda, array: np.ndarray[Any, Any]) -> DeviceTensor:
    block, pinned, stream = cuda.allocate(array.nbytes), cuda.allocate_pinned(array.nbytes), cuda.open_stream()
    pinned.array[:] = array.reshape(-1).view(np.uint8)
    stream.copy_to_device(block.address, pinned.address, array.nbytes)
    stream.synchronize()
    release_all((stream.close, pinned.free))
    return DeviceTensor(block, array.shape, array.dtype, cuda.index)


def _to_host(cuda: Cuda, name: str, tensor: Tensor) -> np.ndarray[Any, Any]:
    assert isinstance(tensor, DeviceTensor)
    size_bytes = math.prod(tensor.shape) * tensor.dtype.itemsize
    pinned, stream = cuda.allocate_pinned(size_bytes), cuda.open_stream()
    source = BorrowedTensor(name, tensor, stream.handle)
    stream.copy_to_host(pinned.address, source.address, size_bytes)
    stream.synchronize()
    found: np.ndarray[Any, Any] = pinned.array.view(tensor.dtype).reshape(tensor.shape).copy()
    release_all((stream.close, pinned.free))
    return found
