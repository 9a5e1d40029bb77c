"""The reference that an engine is held against: its source model in fp32, run by nothing of the engine's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from messages import TensorSpec
from runtimes.source_model import SourceModel


class ReferenceUnavailableError(Exception):
    """This source has no reference here; the text says why. Whether that matters is the caller's decision."""


class Reference(Protocol):
    """A source model on the CPU. `description` is one line for the record: library, version, arithmetic."""

    @property
    def description(self) -> str: ...

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name. Inputs have the engine's dtypes; floats are widened without a change of value.

        Raises ReferenceUnavailableError where the library cannot run it.
        """
        ...


def open_reference(source: SourceModel, *, threads: int) -> Reference:
    """Open the source from the very bytes that were compiled.

    `.onnx`: ONNX Runtime on the CPU without any graph optimisation; where the source itself computes in fp16 or int8
    it is that arithmetic as far as the CPU has it, and the description says so.
    `.pt2`: the same program with every fp16 tensor and dtype in fp32.
    Raises ReferenceUnavailableError where the library is missing or cannot open it.
    """
    if source.path.suffix == ".onnx":
        from runtimes.sign_off.onnx_reference import OnnxReference

        return OnnxReference(source, threads=threads)
    if source.path.suffix == ".pt2":
        from runtimes.sign_off.torch_reference import TorchReference

        return TorchReference(source)
    raise ReferenceUnavailableError(f"{source.path}: no reference runs {source.path.suffix or 'such'} files")


def widened(inputs: Mapping[str, np.ndarray], specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    """The inputs in the reference's dtypes: floats of another width are cast, everything else is as it is."""
    return {
        name: array.astype(specs[name].dtype) if name in specs and _is_float(array.dtype) else array
        for name, array in inputs.items()
    }


def _is_float(dtype: np.dtype) -> bool:
    return bool(np.issubdtype(dtype, np.floating))
