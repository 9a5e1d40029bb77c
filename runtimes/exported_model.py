"""What a `torch.export` program says about itself: its inputs, its outputs, and whether all of it is fp16.

A `.pt2` is code: it is opened from the bytes whose hash was taken, never from the file.
"""

from __future__ import annotations

import io
import logging
import operator
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from messages import DTYPES, TensorSpec, dtype_name
from messages.tensor import RANK_MAX, TENSORS_MAX
from runtimes.inference_runtime import ProfileRange
from runtimes.tensor_check import UNBOUNDED, DimensionNames

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

FAULTS_SHOWN = 5
_NOT_FP16 = ("float32", "float64", "bfloat16", "complex32", "complex64", "complex128")


class ExportedModelError(Exception):
    """The bytes are no program that this runtime runs as it is; the text says why and what to do."""


class ExportedModel(msgspec.Struct, frozen=True):
    """The description of one program.

    `inputs` and `outputs` are in the program's own order. Inputs have the names of the exported placeholders.
    Outputs of a program that returns a dict have its keys; those of a tuple, list or single tensor are `output_0`,
    `output_1`, and so on. `limits` are the sizes that the export allows for dynamic dimensions.
    """

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    dimension_names: DimensionNames
    limits: tuple[ProfileRange, ...]


def open_exported(data: bytes) -> ExportedProgram:
    """Open a program from the bytes whose hash was taken. Raises ExportedModelError from what torch ran into."""
    import torch

    # torch's archives begin with a zip entry and end with the directory; torch logs pages of a traceback otherwise.
    if not data.startswith(b"PK\x03\x04") or data[-22:-18] != b"PK\x05\x06":
        raise ExportedModelError("not a torch.export archive, or cut off; export and save it again")
    with _logged_errors() as logged:
        try:
            return torch.export.load(io.BytesIO(data))
        except Exception as error:  # noqa: BLE001 - torch raises whatever its parser runs into: it may be any bytes
            cause = logged[-1] if logged else error
            raise ExportedModelError(
                f"torch {torch.__version__} cannot open it ({type(cause).__name__}: {str(cause)[:300]}); export it with"
                " this version of torch, on a machine with the devices that it names"
            ) from cause


@contextmanager
def _logged_errors() -> Iterator[list[BaseException]]:
    """The errors that torch logs on this thread instead of raising them, kept out of the log.

    `torch.export.load` (2.9 to 2.13) logs what went wrong and raises "Please check the warnings above".
    """
    logged: list[BaseException] = []
    thread = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread != thread or record.exc_info is None or record.exc_info[1] is None:
            return True
        logged.append(record.exc_info[1])
        return False

    with _HEARD:
        _HEARD.log.addFilter(keep)
        try:
            yield logged
        finally:
            _HEARD.log.removeFilter(keep)


class _HeardLogger:
    """torch's logger, which speaks while somebody listens: `logging.config` silences loggers that it was not told of,
    and what torch says would be lost. What was to be silent stays so in the log. Re-entrant, from any thread.
    """

    def __init__(self) -> None:
        self.log = logging.getLogger("torch.export")
        self._lock = threading.Lock()
        self._listeners = 0
        self._former = (False, logging.NOTSET)
        self._loudest = logging.NOTSET

    def __enter__(self) -> None:
        with self._lock:
            self._listeners += 1
            if self._listeners == 1:
                self._former = (self.log.disabled, self.log.level)
                self._loudest = logging.CRITICAL + 1 if self.log.disabled else self.log.getEffectiveLevel()
                self.log.disabled = False
                self.log.setLevel(min(logging.WARNING, self.log.getEffectiveLevel()))
                self.log.addFilter(self._was_to_be_heard)

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._listeners -= 1
            if not self._listeners:
                self.log.removeFilter(self._was_to_be_heard)
                self.log.disabled = self._former[0]
                self.log.setLevel(self._former[1])

    def _was_to_be_heard(self, record: logging.LogRecord) -> bool:
        return record.exc_info is not None or record.levelno >= self._loudest


_HEARD = _HeardLogger()


def describe_exported(program: ExportedProgram) -> ExportedModel:
    """Raises ExportedModelError where an input or output is no tensor, or where outputs are nested."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    input_nodes = _user_arguments(program.graph_signature.input_specs, "input")
    output_nodes = _user_arguments(program.graph_signature.output_specs, "output")
    output_names = _output_names(program, len(output_nodes))
    inputs = {name: _spec(f"input {name}", values[name]) for name in input_nodes}
    outputs = {
        name: _spec(f"output {name}", values[node]) for name, node in zip(output_names, output_nodes, strict=True)
    }
    ranges = {str(symbol): span for symbol, span in program.range_constraints.items()}
    return ExportedModel(
        inputs,
        outputs,
        {name: _dimension_names(values[name]) for name in inputs},
        tuple(_limit(name, values[name], ranges) for name, spec in inputs.items() if -1 in spec.shape),
    )


def audit_fp16(program: ExportedProgram) -> None:
    """Raises ExportedModelError where anything computes in another float type, or where state is kept between runs.

    Looked at are all parameters, buffers and constants and the result of every operation, those of nested graphs
    included. Integers and booleans are indices and masks, and pass.
    """
    stored = {**program.state_dict, **program.constants}
    faults = [f"{name} is {dtype}" for name, value in stored.items() if (dtype := _float_fault(value))]
    faults += [f"{node} yields {dtype}" for node, dtype in _compute_faults(program)]
    if faults:
        more = f" and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise ExportedModelError(
            f"expected fp16 throughout, found {'; '.join(faults[:FAULTS_SHOWN])}{more}. Export the module in fp16"
            " (.eval().half(), fp16 example inputs, no autocast, no .float() inside)"
        )
    training = [
        f"{node.name} ({node.target})" for graph in _graphs(program) for node in graph.nodes if _is_training(node)
    ]
    if training:
        raise ExportedModelError(f"{training[0]} is in training mode; call .eval() before the export")
    written = _written_state(program)
    if written:
        raise ExportedModelError(
            f"it writes its buffers ({', '.join(written[:FAULTS_SHOWN])}) at every run, so that a result would depend"
            " on the frames before; return the state as an output instead"
        )


def _user_arguments(specs: list[Any], side: str) -> list[str]:
    from torch.export.graph_signature import InputKind, OutputKind, TensorArgument

    arguments = [spec.arg for spec in specs if spec.kind in (InputKind.USER_INPUT, OutputKind.USER_OUTPUT)]
    for argument in arguments:
        if not isinstance(argument, TensorArgument):
            raise ExportedModelError(
                f"{side} {argument.name or 'without a name'} is a {type(argument).__name__}, expected tensors only;"
                " bind constants before the export"
            )
    if len(arguments) > TENSORS_MAX:
        raise ExportedModelError(f"expected at most {TENSORS_MAX} {side}s, found {len(arguments)}")
    return [argument.name for argument in arguments]


def _output_names(program: ExportedProgram, count: int) -> list[str]:
    spec = program.call_spec.out_spec
    if spec is not None and spec.type is dict and spec.num_children == count:
        return [str(key) for key in spec.context]
    if spec is None or spec.num_children not in (0, count) or spec.num_leaves != count:
        raise ExportedModelError(
            "expected a tensor, or a flat tuple, list or dict of tensors as the result, found a nested one"
        )
    return [f"output_{index}" for index in range(count)]


def _spec(what: str, value: object) -> TensorSpec:
    import torch

    if not isinstance(value, torch.Tensor):
        raise ExportedModelError(f"{what} is a {type(value).__name__}, expected a tensor")
    dtype = dtype_name(value.dtype)
    if dtype not in DTYPES or value.dim() > RANK_MAX:
        raise ExportedModelError(f"{what} is {dtype} of rank {value.dim()}, which this runtime does not take")
    shape = tuple(extent if isinstance(extent, int) else -1 for extent in value.shape)
    return TensorSpec(shape, dtype)  # type: ignore[arg-type]


def _dimension_names(value: torch.Tensor) -> tuple[str, ...]:
    return tuple(_symbol(extent) for extent in value.shape)


def _symbol(extent: object) -> str:
    """The name of a dimension that stands for itself, "" for a fixed one or an expression over others."""
    expression = getattr(getattr(extent, "node", None), "expr", None)
    return str(expression) if expression is not None and expression.is_symbol else ""


def _limit(name: str, value: torch.Tensor, ranges: dict[str, Any]) -> ProfileRange:
    spans = [_span(extent, ranges.get(_symbol(extent))) for extent in value.shape]
    low, high = tuple(span[0] for span in spans), tuple(span[1] for span in spans)
    return name, low, low, high


def _span(extent: object, allowed: Any) -> tuple[int, int]:
    if isinstance(extent, int):
        return extent, extent
    if allowed is None:
        return 0, UNBOUNDED  # an expression over other dimensions: the program's own guards check it
    upper = int(allowed.upper) if allowed.upper.is_Integer else UNBOUNDED
    return int(allowed.lower), upper


def _graphs(program: ExportedProgram) -> Iterator[torch.fx.Graph]:
    import torch

    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            yield module.graph


def _compute_faults(program: ExportedProgram) -> Iterator[tuple[str, str]]:
    """Operations whose one result is not fp16. Of several results those count that something takes."""
    for graph in _graphs(program):
        for node in graph.nodes:
            if node.op in ("call_function", "placeholder", "get_attr"):
                dtype = _float_fault(node.meta.get("val"))
                if dtype:
                    yield f"{node.name} ({node.target})" if node.op == "call_function" else node.name, dtype


def _float_fault(value: object) -> str:
    dtype = dtype_name(getattr(value, "dtype", None))
    return dtype if dtype in _NOT_FP16 or dtype.startswith("float8") else ""


def _arguments(node: torch.fx.Node) -> Iterator[tuple[Any, Any]]:
    """The arguments of an operation with their declarations; nothing for a node that is no ATen operation."""
    declared = getattr(getattr(node.target, "_schema", None), "arguments", ())
    for argument, value in zip(declared, node.args, strict=False):
        yield argument, value
    for argument in declared:
        if argument.name in node.kwargs:
            yield argument, node.kwargs[argument.name]


def _is_training(node: torch.fx.Node) -> bool:
    """Dropout, batch norm and recurrent operations say it in an argument of theirs."""
    return any(argument.name in ("train", "training") and value is True for argument, value in _arguments(node))


def _written_state(program: ExportedProgram) -> list[str]:
    """Buffers that some operation writes in place, directly or through a view."""
    stored = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target is not None}
    written = {
        _memory_of(value)
        for node in program.graph.nodes
        for argument, value in _arguments(node)
        if argument.alias_info is not None and argument.alias_info.is_write and hasattr(value, "op")
    }
    return sorted(stored[name] for name in written if name in stored)


def _memory_of(node: torch.fx.Node) -> str:
    """The node whose memory this one's result is: views and in-place operations pass on that of an argument."""
    while node.op == "call_function":
        passed_on = [
            value
            for argument, value in _arguments(node)
            if hasattr(value, "op") and (argument.alias_info is not None or "dropout" in str(node.target))
        ]
        if node.target is operator.getitem:
            passed_on = [node.args[0]]
        if not passed_on:
            break
        node = passed_on[0]
    return node.name
