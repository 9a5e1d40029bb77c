"""Device tensors in and out, as DLPack has them (`dlpack.h` v0.8), without a library of either side.

In: the producer is told our stream, which waits for its work, and its memory is read until our stream is synchronised.
Out: a block of its own for each output, whose work is done, and which lives until its last user lets go of it.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import weakref
from typing import Any

import numpy as np

from messages import InvalidInputError, Tensor
from runtimes.cuda.port import DeviceMemory

_CUDA = 2  # kDLCUDA
_KINDS = {"i": 0, "u": 1, "f": 2, "b": 6}  # kDLInt, kDLUInt, kDLFloat, kDLBool
_NAME = b"dltensor"


class _DLDevice(ctypes.Structure):
    _fields_ = (("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32))


class _DLDataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _DLDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", _DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _DLManagedTensor(ctypes.Structure):
    _fields_ = (("dl_tensor", _DLTensor), ("manager_ctx", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
# Of a capsule that is going away, which no Python reference may hold any more.
_is_unused = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_pointer_of_dying = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class BorrowedTensor:
    """Somebody's tensor on our device. It is theirs to read for us until this object goes."""

    def __init__(self, name: str, tensor: Tensor, stream: int) -> None:
        """`stream` waits for the work that makes the tensor. Raises InvalidInputError naming the input."""
        try:
            self._capsule = tensor.__dlpack__(stream=stream)
            address = _get_pointer(self._capsule, _NAME)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InvalidInputError(f"input {name}: its producer does not give it away: {error}") from error
        found = _DLManagedTensor.from_address(address).dl_tensor
        shape = tuple(found.shape[axis] for axis in range(found.ndim))
        strides = tuple(found.strides[axis] for axis in range(found.ndim)) if found.strides else None
        if strides is not None and not _is_contiguous(shape, strides):
            raise InvalidInputError(
                f"input {name}: expected a contiguous device tensor, found shape {list(shape)} with strides"
                f" {list(strides)}; make it contiguous"
            )
        self.address = int(found.data or 0) + int(found.byte_offset)
        self.size_bytes = math.prod(shape) * found.dtype.bits * found.dtype.lanes // 8


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    if 0 in shape:
        return True
    expected = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1 and stride != expected:
            return False
        expected *= extent
    return True


class _Owner:
    """Whoever holds it keeps the block."""

    def __init__(self, block: DeviceMemory) -> None:
        self.address = block.address
        self.finalizer = weakref.finalize(self, block.free)
        self.finalizer.atexit = False  # the process gives all of it back


_exported: dict[int, tuple[_DLManagedTensor, object, _Owner]] = {}
"""What other libraries hold of our outputs, by number: the structure that they read, and who keeps its memory."""
_numbers = itertools.count(1)


def _delete(address: int) -> None:
    """DLPack's deleter: from any thread, with or without the interpreter's lock."""
    _exported.pop(int(_DLManagedTensor.from_address(address).manager_ctx), None)


def _bury(capsule: int) -> None:
    """A capsule that nobody took still bears its first name, and its tensor goes with it."""
    if _is_unused(capsule, _NAME):
        _delete(_pointer_of_dying(capsule, _NAME))


_deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_delete)
_destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_bury)


class DeviceTensor:
    """An output on the device: `Tensor`. Its work is done, so that any stream may read it at once.

    Give it to a library of your choice, such as `torch.from_dlpack(tensor)`.
    """

    def __init__(self, block: DeviceMemory, shape: tuple[int, ...], dtype: np.dtype[Any], device_index: int) -> None:
        """The block belongs to the tensor from here on."""
        self._owner = _Owner(block)
        self._shape = shape
        self._dtype = dtype
        self._device_index = device_index

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, self._device_index

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"expected device {self.__dlpack_device__()} without a copy, got {dl_device}, {copy}")
        shape = (ctypes.c_int64 * len(self._shape))(*self._shape)
        number = next(_numbers)
        managed = _DLManagedTensor(
            _DLTensor(
                self._owner.address,
                _DLDevice(_CUDA, self._device_index),
                len(self._shape),
                _DLDataType(_KINDS[self._dtype.kind], self._dtype.itemsize * 8, 1),
                ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64)),
                None,
                0,
            ),
            number,
            ctypes.cast(_deleter, ctypes.c_void_p),
        )
        _exported[number] = (managed, shape, self._owner)
        capsule: object = _new_capsule(ctypes.addressof(managed), _NAME, ctypes.cast(_destructor, ctypes.c_void_p))
        return capsule
