"""What a tensor is here, and how one is described without its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol, get_args, runtime_checkable

import msgspec

TENSORS_MAX = 64
"""Most inputs or outputs of one engine."""
RANK_MAX = 16

DType = Literal[
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
]
DTYPES: tuple[str, ...] = get_args(DType)

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
"""The name of a model, tensor or consumer."""

Extent = Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]
"""One dimension of a shape; -1 stands for one that only the request decides."""


@runtime_checkable
class Tensor(Protocol):
    """A NumPy array, or a device tensor that speaks DLPack (a CUDA torch.Tensor, an OrtValue).

    Inputs belong to the runtime until the outcome; outputs belong to the consumer for ever.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> object: ...

    def __dlpack__(self, *, stream: Any = ...) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, Any]: ...


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape and dtype of a tensor. In an engine's description -1 stands for a dynamic dimension."""

    shape: Annotated[tuple[Extent, ...], msgspec.Meta(max_length=RANK_MAX)]
    dtype: DType

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join('?' if extent < 0 else str(extent) for extent in self.shape)}]"


TensorSpecs = Annotated[dict[Name, TensorSpec], msgspec.Meta(max_length=TENSORS_MAX)]


def dtype_name(dtype: object) -> str:
    """The NumPy name of a NumPy or torch dtype: `numpy.dtype('float16')` and `torch.float16` are both 'float16'."""
    name = getattr(dtype, "name", None)
    return name if isinstance(name, str) else str(dtype).rpartition(".")[2]


def spec_of(tensor: Tensor) -> TensorSpec:
    """Describe a tensor. Raises TypeError for a dtype that no engine takes (object, string, datetime)."""
    name = dtype_name(tensor.dtype)
    if name not in DTYPES:
        raise TypeError(f"a tensor of dtype {name} has no description; expected one of {', '.join(DTYPES)}")
    return TensorSpec(tuple(int(extent) for extent in tensor.shape), name)  # type: ignore[arg-type]


def specs_of(tensors: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    return {name: spec_of(tensor) for name, tensor in tensors.items()}
