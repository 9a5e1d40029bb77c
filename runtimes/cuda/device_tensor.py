"""Where a tensor lies, as DLPack says; for every runtime that takes tensors of a device."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from messages import InvalidInputError, Tensor

_CUDA = 2
"""kDLCUDA of `dlpack.h`. Pinned memory (kDLCUDAHost, 3) and managed memory (kDLCUDAManaged, 13) are not it."""


def on_cuda(tensor: object) -> bool:
    """Whether a tensor lies on a CUDA device."""
    if isinstance(tensor, np.ndarray) or not isinstance(tensor, Tensor):
        return False
    return int(tensor.__dlpack_device__()[0]) == _CUDA


def check_devices(model: str, inputs: Mapping[str, Tensor], device: str) -> None:
    """Device tensors come all together, and on the engine's device, such as `cuda:0`. Raises InvalidInputError."""
    index = int(device.rpartition(":")[2])
    strangers = [
        name for name, tensor in inputs.items() if not on_cuda(tensor) or int(tensor.__dlpack_device__()[1]) != index
    ]
    if strangers:
        raise InvalidInputError(
            f"{model}: expected all inputs on {device} or all as NumPy arrays, found {', '.join(strangers)} elsewhere"
        )
