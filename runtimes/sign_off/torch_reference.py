"""A `.pt2` source as its own reference: the same program with every fp16 tensor and dtype in fp32, on the CPU.

Halving an fp32 program breaks on inner dtypes. The way back is safe here, because only programs pass the audit in
which every float is fp16: all parameters, buffers and constants are widened, and every fp16 dtype that an operation
names (`to`, `arange`, `zeros`, `softmax`, the metadata that `torch.export` asserts) becomes fp32, in nested graphs
(`torch.cond`) as well. What still cannot be widened is an operation that looks at bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from messages import TensorSpec, dtype_name
from runtimes.exported_model import ExportedModelError, describe_exported, open_exported
from runtimes.sign_off.reference import ReferenceUnavailableError, widened
from runtimes.source_model import SourceModel

if TYPE_CHECKING:
    import torch

_BITS = ("aten.view.dtype", "aten.view_copy.dtype", "aten.frexp", "aten.nextafter")
"""Operations whose result depends on how many bits a float has."""
_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, AttributeError, MemoryError)


class TorchReference:
    """The widened program. Its inputs and outputs have the source's names."""

    def __init__(self, source: SourceModel) -> None:
        try:
            import torch
        except ImportError as error:
            raise ReferenceUnavailableError(f"torch cannot be imported ({error})") from error
        try:
            program = open_exported(source.data)
            model = describe_exported(program)
        except ExportedModelError as error:
            raise ReferenceUnavailableError(f"{source.path}: {error}") from error
        self._inputs = {
            name: TensorSpec(spec.shape, "float32" if spec.dtype == "float16" else spec.dtype)
            for name, spec in model.inputs.items()
        }
        self._names = list(model.outputs)
        self._structure = program.call_spec.in_spec
        self._module = _widen(program.module(), source)
        self.description = f"torch {torch.__version__} on the CPU, the exported program in fp32"

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch
        from torch.utils import _pytree as pytree

        given = widened(inputs, self._inputs)
        tensors = [torch.from_numpy(np.array(given[name], order="C", copy=True)) for name in self._inputs]
        try:
            with torch.inference_mode():
                arguments, keywords = pytree.tree_unflatten(tensors, self._structure)
                leaves = pytree.tree_leaves(self._module(*arguments, **keywords))
        except _ERRORS as error:
            raise ReferenceUnavailableError(
                f"the program does not run in fp32: {type(error).__name__}: {str(error).strip()[:500]}"
            ) from error
        results = dict(zip(self._names, leaves, strict=True))
        narrow = [name for name, tensor in results.items() if dtype_name(tensor.dtype) == "float16"]
        if narrow:
            raise ReferenceUnavailableError(f"expected every float in fp32, found {', '.join(narrow)} in fp16")
        return {name: tensor.contiguous().numpy() for name, tensor in results.items()}


def _widen(module: torch.nn.Module, source: SourceModel) -> torch.nn.Module:
    """The program's parameters, buffers, constants and dtype arguments in fp32, in place."""
    import torch

    module = module.to("cpu", torch.float32)
    for part in module.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, torch.Tensor):  # a constant that is neither parameter nor buffer
                setattr(part, name, _wide(value))
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                if node.op == "call_function" and str(node.target).startswith(_BITS):
                    raise ReferenceUnavailableError(
                        f"{source.path}: {node.name} ({node.target}) looks at the bits of fp16, which fp32 has not"
                    )
                node.args = torch.fx.node.map_aggregate(node.args, _wide)
                node.kwargs = torch.fx.node.map_aggregate(node.kwargs, _wide)
            part.recompile()
    return module


def _wide(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.to("cpu", torch.float32 if value.dtype == torch.float16 else value.dtype)
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return torch.float32 if value == torch.float16 else value
