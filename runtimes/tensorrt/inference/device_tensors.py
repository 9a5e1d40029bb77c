"""Device tensors in and out, as DLPack has them (`dlpack.h` v0.8).

In: the producer is told our stream, which waits for its work, and its memory is read until our stream is synchronised.
Out: a block of its own for each output, whose work is done, and which lives until its last user lets go of it.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from typing import Any

import numpy as np

from messages import InvalidInputError, Tensor
from messages.tensor import spec_of
from runtimes.cuda.port import DeviceMemory

_CUDA = 2  # kDLCUDA
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}  # kDLInt, kDLUInt, kDLFloat, kDLBool
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


class BorrowedTensor:
    """Somebody's tensor on our device. It is theirs to read for us until this object goes."""

    def __init__(self, name: str, tensor: Tensor, stream: int) -> None:
        """`stream` waits for the work that makes the tensor. Raises InvalidInputError naming the input.

        What the tensor says of itself was compared with the engine before. Its capsule has to say the same, because
        its sizes are what is copied.
        """
        expected = spec_of(tensor)
        device = tuple(int(number) for number in tensor.__dlpack_device__())
        try:
            self._capsule = tensor.__dlpack__(stream=stream)
            address = _get_pointer(self._capsule, _NAME)
        except Exception as error:  # a library that we do not know: torch raises AssertionError here, among others
            raise InvalidInputError(
                f"input {name}: its producer does not give it away: {type(error).__name__}: {error}"
            ) from error
        found = _DLManagedTensor.from_address(address).dl_tensor
        shape = tuple(found.shape[axis] for axis in range(found.ndim))
        dtype = (found.dtype.code, found.dtype.bits, found.dtype.lanes)
        place = (found.device.device_type, found.device.device_id)
        if (shape, place) != (expected.shape, device) or dtype not in _dtypes(expected.dtype):
            raise InvalidInputError(
                f"input {name}: expected a capsule of what the tensor says it is, {expected} on device {device}, found"
                f" shape {list(shape)} of {_words(dtype)} on device {place}"
            )
        strides = tuple(found.strides[axis] for axis in range(found.ndim)) if found.strides else None
        if strides is not None and not _is_contiguous(shape, strides):
            raise InvalidInputError(
                f"input {name}: expected a contiguous device tensor, found shape {list(shape)} with strides"
                f" {list(strides)}; make it contiguous"
            )
        self.address = int(found.data or 0) + int(found.byte_offset)
        self.size_bytes = math.prod(shape) * found.dtype.bits // 8


def _dtypes(name: str) -> tuple[tuple[int, int, int], ...]:
    """DLPack's numbers for a dtype that NumPy has."""
    dtype = np.dtype(name)
    own = (_CODES[dtype.kind], dtype.itemsize * 8, 1)
    # Before `dlpack.h` v0.8 there was no kDLBool, and libraries gave bytes.
    return (own, (_CODES["u"], 8, 1)) if dtype.kind == "b" else (own,)


def _words(dtype: tuple[int, int, int]) -> str:
    code, bits, lanes = dtype
    return f"type code {code}, {bits} bits, {lanes} lanes"


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
    """Whoever holds it keeps the block.

    The free leaves the current device of its thread alone: that may be a consumer's, and CUDA's addresses say by
    themselves which device they are of.
    """

    def __init__(self, block: DeviceMemory) -> None:
        self.address = block.address
        self.finalizer = weakref.finalize(self, block.free)
        self.finalizer.atexit = False  # the process gives all of it back


class _Lent:
    """What NumPy makes an array of, without reading it, and holds until the last user lets go."""

    def __init__(self, owner: _Owner, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.owner = owner
        self.strides = (ctypes.c_int64 * len(shape))(*(math.prod(shape[axis + 1 :]) for axis in range(len(shape))))
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": (owner.address, False)}


class DeviceTensor:
    """An output on the device: `Tensor`. Its work is done, so that any stream may read it at once.

    Give it to a library of your choice, such as `torch.from_dlpack(tensor)`. Synchronise the stream that reads it
    before the last one lets go of it: its memory is freed at once, and CUDA says of that only that it "may perform
    implicit synchronization" (Runtime API manual, cudaFree).
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
    ) -> Any:
        device = self.__dlpack_device__()
        if copy or (dl_device is not None and tuple(dl_device) != device):
            raise BufferError(
                f"expected device {device} or none and no copy, found device {dl_device} and copy={copy}; import it"
                " where it lies, and copy it there"
            )
        # NumPy makes the capsule. Its destructor and deleter are C, so that they hold on any thread, while an exception
        # is on its way, and when the interpreter is gone; ours would be Python inside of it.
        lent = _Lent(self._owner, self._shape, self._dtype)
        capsule = np.asarray(lent).__dlpack__()
        found = _DLManagedTensor.from_address(_get_pointer(capsule, _NAME)).dl_tensor
        found.device = _DLDevice(*device)
        # Not NULL, which `dlpack.h` allows no more from v1.2 on.
        found.strides = ctypes.cast(lent.strides, ctypes.POINTER(ctypes.c_int64))
        if 0 in self._shape:
            found.data = None  # as `dlpack.h` says from v1.1 on
        return capsule
