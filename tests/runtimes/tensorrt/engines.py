"""What the tests of loaded engines share: types of their fixtures, and arrays on the device and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from messages import Tensor
from runtimes.cuda.port import Cuda
from runtimes.inference_runtime import ProfileRange
from runtimes.tensorrt.inference.activation_memory import ActivationMemory
from runtimes.tensorrt.inference.device_tensors import DeviceTensor
from runtimes.tensorrt.inference.engine import LoadedEngine
from runtimes.tensorrt.inference.execution import Execution

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device

Profile = tuple[ProfileRange, ...]

ROWS: Profile = (("x", (0, 3), (2, 3), (6, 3)),)
SCALE = np.array([1, -2, 0.5], np.float32)


class MakePlan(Protocol):
    def __call__(self, onnx: bytes, profile: Profile = (), **fields: Any) -> bytes: ...


class Load(Protocol):
    def __call__(self, onnx: bytes, profile: Profile = (), **fields: Any) -> LoadedEngine: ...


class Ready(Protocol):
    def __call__(
        self,
        onnx: bytes,
        profile: Profile = (),
        *,
        graphs: Sequence[Mapping[str, tuple[int, ...]]] = (),
        activations: ActivationMemory | None = None,
        **fields: Any,
    ) -> Execution: ...


def rows(count: int, kind: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 3)).astype(kind)


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, np.ndarray]) -> None:
    """The same names in the same order, and arrays of the same type, shape and bits."""
    assert [*found] == [*expected]
    for name, array in expected.items():
        came_out = found[name]
        assert isinstance(came_out, np.ndarray)
        assert came_out.dtype == array.dtype
        assert came_out.shape == array.shape
        np.testing.assert_array_equal(came_out, array)


def to_device(cuda: Cuda, device: Device, array: np.ndarray) -> DeviceTensor:
    block = cuda.allocate(array.nbytes)
    device.bytes_at(block.address, array.nbytes)[:] = np.frombuffer(array.tobytes(), np.uint8)
    return DeviceTensor(block, array.shape, array.dtype, cuda.index)


def to_host(device: Device, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Copies of tensors that lie on the device."""
    return {name: _to_host(device, tensor) for name, tensor in tensors.items()}


def _to_host(device: Device, tensor: Tensor) -> np.ndarray:
    assert isinstance(tensor, DeviceTensor)
    size_bytes = int(np.prod(tensor.shape)) * tensor.dtype.itemsize
    found = np.empty(tensor.shape, tensor.dtype)
    found.reshape(-1).view(np.uint8)[:] = device.bytes_at(tensor._owner.address, size_bytes)
    return found
