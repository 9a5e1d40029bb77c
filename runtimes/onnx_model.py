"""What an ONNX file says about itself, audited before ONNX Runtime sees it: whole, in one file, of one precision."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import msgspec

from messages import DTYPES, EngineBuildError, RuntimeNotAvailableError, TensorSpec
from runtimes.inference_runtime import Precision
from runtimes.source_model import SourceModel

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

FAULTS_SHOWN = 5
_FLOATS: dict[Precision, tuple[str, ...]] = {"fp32": ("FLOAT", "DOUBLE"), "fp16": ("FLOAT16",)}
"""The float types that a model of a precision may compute in; a precision that is not listed is not audited."""
_DTYPES = {"FLOAT": "float32", "DOUBLE": "float64"}
"""ONNX's names that differ from NumPy's."""
_NARROW = {"FLOAT16": "fp16", "BFLOAT16": "bf16"}
_QUANTIZED_OPS = (
    "QuantizeLinear",
    "DynamicQuantizeLinear",
    "DequantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
)


class AuditedModel(msgspec.Struct, frozen=True, eq=False):
    """`data` is the model with its weights as constants; `inputs` are what remains to be given."""

    data: bytes
    inputs: dict[str, TensorSpec]


def audit_onnx(source: SourceModel, precision: Precision) -> AuditedModel:
    """The model, once it is known to be whole and of this precision.

    Raises EngineBuildError that names what is at fault: a file that is cut off, weights in other files (ONNX Runtime
    would read them from the working folder), an input or output without a rank, a value computed in another precision.
    """
    model = _parse(source)
    stray = [tensor.name for tensor in _tensors(model) if tensor.data_location == tensor.EXTERNAL]
    if stray:
        raise EngineBuildError(
            f"{source.path}: expected all weights in the file, found {len(stray)} in other files ({stray[0]}, ...);"
            " save it without external data, so that one hash covers all of it"
        )
    for value in (*model.graph.input, *model.graph.output):
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            raise EngineBuildError(
                f"{source.path}: {value.name} has no rank; export it with a shape, where dimensions may be dynamic"
            )
    faults = list(_precision_faults(model, precision)) if precision in _FLOATS else []
    if faults:
        more = f" and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise EngineBuildError(
            f"{source.path}: expected {precision} throughout, found {'; '.join(faults[:FAULTS_SHOWN])}{more}; export"
            f" the model in {precision}, or compile it on a runtime that does its precision"
        )
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    data = source.data
    if len(inputs) < len(model.graph.input):
        # Up to IR version 3 weights are listed as inputs too. ONNX Runtime 1.31 leaves those that it folds away as
        # required inputs of the optimised model.
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        model.ir_version = max(model.ir_version, 4)
        data = model.SerializeToString()
    return AuditedModel(data, {value.name: _spec(source, value) for value in inputs})


def refuse_partial_engine(model: str, engine: bytes) -> None:
    """Raises EngineBuildError where a TensorRT context model kept operations that TensorRT did not take."""
    import onnx

    left = {node.op_type for node in onnx.load_model_from_string(engine).graph.node} - {"EPContext"}
    if left:
        raise EngineBuildError(
            f"{model}: expected all operations inside the TensorRT engine, found outside: {', '.join(sorted(left))}"
        )


def narrow_types(data: bytes) -> list[str]:
    """Which types below fp32 a model computes in by itself: `fp16`, `bf16`, `int8`.

    Without the onnx package, which a compilation needs, that is not known. Raises RuntimeNotAvailableError.
    """
    model = _loaded(data)
    import onnx

    kinds = {tensor.data_type for tensor in _tensors(model)}
    kinds |= {value.type.tensor_type.elem_type for graph in _graphs(model.graph) for value in graph.input}
    nodes = list(_nodes(model))
    kinds |= {a.i for node in nodes if node.op_type == "Cast" for a in node.attribute if a.name == "to"}
    found = [name for kind, name in _NARROW.items() if onnx.TensorProto.DataType.Value(kind) in kinds]
    if any(node.op_type in _QUANTIZED_OPS for node in nodes):
        found.append("int8")
    return found


def floating_activations(data: bytes) -> frozenset[str]:
    """The inputs and results of operations that are floating, or of a type that ONNX's inference does not know.

    Weights and what `Constant` gives are none. Raises as `narrow_types` does.
    """
    model = _loaded(data)
    import onnx

    typed = onnx.shape_inference.infer_shapes(model)
    found: set[str] = set()
    for graph in _graphs(typed.graph):
        weights = {tensor.name for tensor in graph.initializer}
        values = (*graph.input, *graph.output, *graph.value_info)
        kinds = {value.name: onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type) for value in values}
        computed = {name for node in graph.node if node.op_type != "Constant" for name in node.output if name}
        names = computed | {value.name for value in graph.input} - weights
        found |= {name for name in names if name not in kinds or _is_float(kinds[name])}
    return frozenset(found)


def name_nodes(data: bytes, operators: Collection[str]) -> tuple[bytes, tuple[str, ...]]:
    """The names of all nodes of these operators, in order, and the model in which each has one.

    Where all have one it is the very model that was given. Raises as `narrow_types` does.
    """
    model = _loaded(data)
    nodes = [node for node in _nodes(model) if node.op_type in operators]
    unnamed = [(index, node) for index, node in enumerate(nodes) if not node.name]
    taken = {node.name for node in _nodes(model)}
    for index, node in unnamed:
        number = index
        while (name := f"{node.op_type}.{number}") in taken:
            number += len(nodes)
        node.name = name
        taken.add(name)
    return (model.SerializeToString() if unnamed else data), tuple(node.name for node in nodes)


def _loaded(data: bytes) -> ModelProto:
    try:
        import onnx
    except ImportError as error:
        raise RuntimeNotAvailableError(f"the onnx package cannot be imported ({error})") from error
    return onnx.load_model_from_string(data)


def _parse(source: SourceModel) -> ModelProto:
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise EngineBuildError(
            f"{source.path}: compiling ONNX needs the onnx package, which cannot be imported ({error}); install"
            " c7-inference with its extra `onnx`"
        ) from error
    try:
        model = onnx.load_model_from_string(source.data)
    except DecodeError as error:
        raise EngineBuildError(f"{source.path}: not an ONNX model, or cut off ({error}); export it again") from error
    if not model.graph.node or not model.graph.output:
        raise EngineBuildError(f"{source.path}: expected an ONNX model, found one without a graph; export it again")
    return model


def _spec(source: SourceModel, value: ValueInfoProto) -> TensorSpec:
    import onnx

    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    dtype = _DTYPES.get(kind, kind.lower())
    if dtype not in DTYPES or dtype == "bfloat16":
        raise EngineBuildError(f"{source.path}: input {value.name} is {kind}, expected a tensor of a NumPy type")
    shape = tuple(
        extent.dim_value if extent.HasField("dim_value") else -1 for extent in value.type.tensor_type.shape.dim
    )
    return TensorSpec(shape, dtype)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        yield from _subgraphs(node)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            yield from _graphs(graph)


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    for graph in _graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        for node in function.node:
            yield node
            for graph in _subgraphs(node):
                yield from graph.node


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in _graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)


def _precision_faults(model: ModelProto, precision: Precision) -> Iterator[str]:
    """Inputs, outputs and results of operations in another float type, by ONNX's own type inference.

    Weights are not looked at: operators take some of them (the scales of Resize) in fp32 whatever the model is in.
    """
    import onnx
    from onnx.inliner import inline_local_functions

    if model.functions:
        model = inline_local_functions(model)
    quantized = sorted({node.op_type for node in _nodes(model) if node.op_type in _QUANTIZED_OPS})
    if quantized:
        yield f"int8 operations ({', '.join(quantized)})"
    typed = onnx.shape_inference.infer_shapes(model)
    for graph in _graphs(typed.graph):
        values = {value.name: value for value in (*graph.input, *graph.output, *graph.value_info)}
        computed = {name for node in graph.node for name in node.output if name}
        for name, value in values.items():
            kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            if _is_float(kind) and kind not in _FLOATS[precision]:
                yield f"{name} is {kind}"
        # An operator of another domain has no inference. On fp32 it cannot hide more than casts of its own.
        unknown = sorted(computed - values.keys()) if precision == "fp16" else []
        yield from (f"{name} is of unknown type" for name in unknown)


def _is_float(kind: str) -> bool:
    return "FLOAT" in kind or kind in ("DOUBLE", "COMPLEX64", "COMPLEX128")
