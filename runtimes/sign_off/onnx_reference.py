"""An ONNX source as its own reference: ONNX Runtime on the CPU, every graph optimisation off."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from messages import C7Error
from runtimes.onnx_model import narrow_types
from runtimes.onnx_session import import_onnxruntime, open_session, ort_errors, silent_run_options, specs_of_nodes
from runtimes.sign_off.reference import ReferenceUnavailableError, widened
from runtimes.source_model import SourceModel


class OnnxReference:
    """ONNX Runtime's CPU provider has kernels of its own for fp32, and no other graph than the source's."""

    def __init__(self, source: SourceModel, *, threads: int) -> None:
        try:
            version = import_onnxruntime().__version__
            self._session = open_session(source.data, "cpu", threads=threads, device_index=0)
            self._inputs = specs_of_nodes(self._session.get_inputs())
            self._names = [node.name for node in self._session.get_outputs()]
            narrow = narrow_types(source.data)
        except C7Error as error:
            raise ReferenceUnavailableError(str(error)) from error
        except ort_errors() as error:
            raise ReferenceUnavailableError(
                f"{source.path}: ONNX Runtime's CPU provider cannot open it: {str(error).strip()[:500]}"
            ) from error
        # Its kernels for fp16 are few on a CPU: it puts casts around the others and drops those that cancel out.
        arithmetic = f"its own {' and '.join(narrow)} where the CPU has it, else fp32" if narrow else "fp32"
        self.description = f"onnxruntime {version} on the CPU, graph optimisations off, {arithmetic}"

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            outputs = self._session.run(self._names, widened(inputs, self._inputs), silent_run_options())
        except ort_errors() as error:
            raise ReferenceUnavailableError(f"ONNX Runtime's CPU provider: {str(error).strip()[:500]}") from error
        return dict(zip(self._names, outputs, strict=True))
