"""The same graph for PyTorch: every node walked in order, every float in one dtype."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy.typing as npt

if TYPE_CHECKING:
    import onnx
    import torch

Weights = Mapping[str, npt.NDArray[Any]]
Attributes = Mapping[str, Any]
Operator = Callable[..., "torch.Tensor | Sequence[torch.Tensor]"]


class Step(NamedTuple):
    """One node: what it calls, and the names of the values that it reads and writes."""

    operator: Operator
    reads: tuple[str, ...]
    writes: tuple[str, ...]


def torch_module(model: onnx.ModelProto, dtype: torch.dtype) -> torch.nn.Module:
    """A module whose `forward` takes the graph's inputs in order and returns its outputs by name.

    The weights are buffers. Raises KeyError, naming the operator, where the graph has one that is not in the tables.
    """
    import torch
    from onnx import numpy_helper

    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    steps = _steps(model, weights, dtype)
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    read = {name for step in steps for name in step.reads}
    buffers = {name: f"weight_{index}" for index, name in enumerate(weights) if name in read}

    class Graph(torch.nn.Module):
        def forward(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
            values: dict[str, torch.Tensor] = dict(zip(inputs, tensors, strict=True))
            values.update((name, cast("torch.Tensor", getattr(self, buffer))) for name, buffer in buffers.items())
            for step in steps:
                result = step.operator(*(values[name] for name in step.reads))
                values.update(zip(step.writes, (result,) if isinstance(result, torch.Tensor) else result, strict=True))
            return {name: values[name] for name in outputs}

    # torch.export names the inputs of its program after the parameters that it finds here.
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *inputs)]
    Graph.forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    module = Graph()
    for name, buffer in buffers.items():
        tensor = torch.from_numpy(weights[name].copy())
        module.register_buffer(buffer, tensor.to(dtype) if tensor.is_floating_point() else tensor)
    return module.eval()


def save_exported_program(model: onnx.ModelProto, path: Path, *, extent_max: int) -> None:
    """Write the graph as a `torch.export` program in float16. Takes seconds.

    Named extents stay dynamic, from 2 (a program is specialised on extents 0 and 1) to `extent_max`.
    """
    import torch
    from onnx import TensorProto

    dimensions: dict[str, torch.export.Dim] = {}
    dynamic: dict[str, dict[int, torch.export.Dim]] = {}
    examples: list[torch.Tensor] = []
    for value in model.graph.input:
        tensor = value.type.tensor_type
        names = {axis: extent.dim_param for axis, extent in enumerate(tensor.shape.dim) if extent.dim_param}
        for name in names.values():
            dimensions.setdefault(name, torch.export.Dim(name, min=2, max=extent_max))
        dynamic[value.name] = {axis: dimensions[name] for axis, name in names.items()}
        # Examples of different length, so that two names are not taken for one.
        lengths = {name: 8 + index for index, name in enumerate(dimensions)}
        shape = [lengths.get(extent.dim_param, extent.dim_value) for extent in tensor.shape.dim]
        examples.append(
            torch.zeros(shape, dtype=torch.float16 if tensor.elem_type == TensorProto.FLOAT else torch.int64)
        )
    with torch.no_grad():
        module = torch_module(model, torch.float16)
        program = torch.export.export(module, tuple(examples), dynamic_shapes=dynamic, strict=False)
    _forget_sources(program)
    torch.export.save(program, path)


def _forget_sources(program: torch.export.ExportedProgram) -> None:
    """Leave out where this file lies: a network is the same bytes, whatever checkout it was exported in."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)


def _steps(model: onnx.ModelProto, weights: Weights, dtype: torch.dtype) -> list[Step]:
    from onnx import helper

    plain, shaped, configured = _plain_operators(), _shaped_operators(), _configured_operators(dtype)
    steps = []
    for node in model.graph.node:
        kind, reads, writes = node.op_type, tuple(node.input), tuple(node.output)
        if kind in plain:
            steps.append(Step(plain[kind], reads, writes))
            continue
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if kind in shaped:
            numbers = [weights[name].tolist() for name in reads[1:] if name]
            steps.append(Step(partial(shaped[kind], attributes, numbers), reads[:1], writes))
        else:
            steps.append(Step(partial(configured[kind], attributes), reads, writes))
    return steps


def _plain_operators() -> dict[str, Operator]:
    """ONNX operator -> what PyTorch calls it, where the tensors say everything."""
    import torch
    from torch.nn import functional

    return {
        "Abs": torch.abs,
        "Add": torch.add,
        "And": torch.logical_and,
        "Cos": torch.cos,
        "Div": lambda a, b: torch.div(a, b, rounding_mode=None if a.is_floating_point() else "floor"),
        "Equal": torch.eq,
        "Erf": torch.erf,
        "Exp": torch.exp,
        "Greater": torch.gt,
        "GridSample": lambda x, places: functional.grid_sample(x, places, padding_mode="border", align_corners=False),
        "Identity": torch.clone,
        "MatMul": torch.matmul,
        "Mod": torch.remainder,
        "Mul": torch.mul,
        "Neg": torch.neg,
        "Pow": torch.pow,
        "Relu": torch.relu,
        "Sigmoid": torch.sigmoid,
        "Sin": torch.sin,
        "Softplus": functional.softplus,
        "Sqrt": torch.sqrt,
        "Sub": torch.sub,
        "Tanh": torch.tanh,
        "Where": torch.where,
    }


def _shaped_operators() -> dict[str, Operator]:
    """Operators on one tensor whose other inputs are numbers of the graph: called with attributes and numbers."""
    from torch.nn import functional

    return {
        "Reshape": lambda _, numbers, x: x.reshape([n or x.shape[axis] for axis, n in enumerate(numbers[0])]),
        "Resize": lambda _, numbers, x: functional.interpolate(
            x, scale_factor=numbers[0][2:], mode="bilinear", align_corners=False
        ),
        "Slice": lambda _, numbers, x: x.narrow(numbers[2][0], numbers[0][0], numbers[1][0] - numbers[0][0]),
        "Split": lambda attributes, numbers, x: x.split(numbers[0], attributes["axis"]),
        "Unsqueeze": lambda _, numbers, x: x.unsqueeze(numbers[0][0]),
        "TopK": lambda attributes, numbers, x: x.topk(numbers[0][0], dim=attributes["axis"]),
    }


def _configured_operators(dtype: torch.dtype) -> dict[str, Operator]:
    """Operators called with their attributes first; the ones that the demo's networks set, and no others."""
    import torch
    from torch.nn import functional

    return {
        "ArgMax": lambda a, x: x.argmax(a["axis"], keepdim=bool(a["keepdims"])),
        "Cast": lambda _, x: x.to(dtype),
        "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
        "Conv": lambda a, x, weight, bias: functional.conv2d(
            x, weight, bias, stride=a["strides"], padding=a["pads"][:2], groups=a["group"]
        ),
        "DepthToSpace": lambda a, x: functional.pixel_shuffle(x, a["blocksize"]),
        "Gather": lambda a, x, index: x.index_select(a["axis"], index),
        "LayerNormalization": lambda a, x, scale, bias: functional.layer_norm(
            x, x.shape[-1:], scale, bias, a["epsilon"]
        ),
        "LogSoftmax": lambda a, x: x.log_softmax(a["axis"]),
        "MaxPool": lambda a, x: functional.max_pool2d(x, a["kernel_shape"], a["strides"], a["pads"][:2]),
        "ReduceL2": lambda a, x: torch.linalg.vector_norm(x, dim=a["axes"], keepdim=bool(a["keepdims"])),
        "ReduceMax": lambda a, x: x.amax(a["axes"], keepdim=bool(a["keepdims"])),
        "ReduceMean": lambda a, x: x.mean(a["axes"], keepdim=bool(a["keepdims"])),
        "Softmax": lambda a, x: x.softmax(a["axis"]),
        # For one channel the two libraries agree on the order of the pixels.
        "SpaceToDepth": lambda a, x: functional.pixel_unshuffle(x, a["blocksize"]),
        "Transpose": lambda a, x: x.permute(a["perm"]),
    }
