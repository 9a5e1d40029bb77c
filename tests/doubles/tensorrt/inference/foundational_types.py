"""Shapes, host memory, and what NVIDIA's package says of types: `python/src/infer/pyFoundationalTypes.cpp` and
`python/packaging/bindings_wheel/tensorrt/__init__.py`, tag v10.3.0.
"""

# ruff: noqa: N802 - the names are NVIDIA's

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np

from ..enums import DataType
from .bound import MODULE, Bound

_MAX_DIMS = 8


class Dims(metaclass=Bound):
    """A shape. `len` of one that is invalid raises ValueError: dims_len gives -1, which Python refuses."""

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("_extents", "_initialised")

    def __init__(self, shape: Sequence[int] | None = None) -> None:
        extents = [] if shape is None else [operator.index(extent) for extent in shape]
        if len(extents) > _MAX_DIMS:
            raise ValueError(f"Input length {len(extents)}. Max expected length is {_MAX_DIMS}")
        self._extents: list[int] | None = extents
        self._initialised = True

    @classmethod
    def _invalid(cls) -> Dims:
        """`Dims{-1, {}}` of `NvInferRuntime.h`."""
        made = cls()
        made._extents = None
        return made

    @property
    def MAX_DIMS(self) -> int:
        return _MAX_DIMS

    def __len__(self) -> int:
        return -1 if self._extents is None else len(self._extents)

    @overload
    def __getitem__(self, index: int, /) -> int: ...
    @overload
    def __getitem__(self, index: slice, /) -> tuple[int, ...]: ...
    def __getitem__(self, index: int | slice, /) -> int | tuple[int, ...]:
        extents = self._extents or []
        return tuple(extents[index]) if isinstance(index, slice) else extents[index]

    def __setitem__(self, index: int, extent: int, /) -> None:
        if self._extents is None:
            raise IndexError
        self._extents[index] = operator.index(extent)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Dims, list, tuple)) and tuple(other[:]) == self[:]

    def __repr__(self) -> str:
        return str(tuple(self._extents or []))


class IHostMemory(bytearray):
    """Bytes that TensorRT made, through the buffer protocol alone: it has no length and no items of its own."""

    __slots__ = ("_data_type",)
    _data_type: DataType

    def __init__(self, *_arguments: object, **_keywords: object) -> None:
        raise TypeError(f"{MODULE}.IHostMemory: No constructor defined!")

    @classmethod
    def _holding(cls, data: bytes) -> IHostMemory:
        made = cls.__new__(cls)
        bytearray.__init__(made, data)
        made._data_type = DataType.INT8
        return made

    @property
    def dtype(self) -> DataType:
        return self._data_type

    @property
    def nbytes(self) -> int:
        return bytearray.__len__(self)

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        raise TypeError("object of type 'tensorrt.tensorrt.IHostMemory' has no len()")

    def __getitem__(self, _index: object) -> Any:
        raise TypeError("'tensorrt.tensorrt.IHostMemory' object is not subscriptable")

    def __iter__(self) -> Any:
        raise TypeError("'tensorrt.tensorrt.IHostMemory' object is not iterable")


NUMPY_TYPES: dict[DataType, type[np.generic]] = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.INT32: np.int32,
    DataType.INT64: np.int64,
    DataType.BOOL: np.bool_,
    DataType.UINT8: np.uint8,
}


def nptype(trt_type: DataType) -> type[np.generic]:
    if trt_type in NUMPY_TYPES:
        return NUMPY_TYPES[trt_type]
    raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")


def volume(iterable: Iterable[int]) -> int:
    product = 1
    for extent in iterable:
        product *= extent
    return product
