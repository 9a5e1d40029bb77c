"""A model as TensorRT parsed it, and the part of TensorRT's classes that a build uses.

The parser is given a file: in 10.3 `OnnxParser.parse` touches a Python buffer without the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Protocol

from typing_extensions import Buffer

from messages import EngineBuildError
from messages.errors import printable
from runtimes.tensorrt.bindings import Dims
from runtimes.tensorrt.faults import words_of
from runtimes.tensorrt.log import TensorrtLog

PARSER_REMEDY = "export the model in operations that TensorRT's parser has"
_SHOWN = 3
_OF_NODE = "[ONNX Layer: "
_OF_FUNCTION = " | Local Function: "
_TEXT_MAX_CHARS = 300


class Tensor(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> object: ...


class Layer(Protocol):
    precision: object

    @property
    def name(self) -> str: ...
    @property
    def metadata(self) -> str: ...
    @property
    def type(self) -> object: ...
    @property
    def num_inputs(self) -> int: ...
    def get_input(self, index: int) -> Tensor | None: ...
    @property
    def num_outputs(self) -> int: ...
    def get_output(self, index: int) -> Tensor | None: ...


class NetworkInput(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Dims: ...
    @property
    def is_shape_tensor(self) -> bool: ...


class Network(Protocol):
    @property
    def num_inputs(self) -> int: ...
    def get_input(self, index: int) -> NetworkInput: ...
    @property
    def num_layers(self) -> int: ...
    def get_layer(self, index: int) -> Layer: ...


class TimingCache(Protocol):
    def serialize(self) -> Buffer | None: ...


class BuilderConfig(Protocol):
    profiling_verbosity: object
    builder_optimization_level: int
    progress_monitor: object
    int8_calibrator: object

    @property
    def num_optimization_profiles(self) -> int: ...
    def set_flag(self, flag: object) -> None: ...
    def clear_flag(self, flag: object) -> None: ...
    def get_flag(self, flag: object) -> bool: ...
    def set_memory_pool_limit(self, pool: object, pool_size: int) -> None: ...
    def get_memory_pool_limit(self, pool: object) -> int: ...
    def add_optimization_profile(self, profile: object) -> int: ...
    def set_calibration_profile(self, profile: object) -> bool: ...
    def create_timing_cache(self, serialized_timing_cache: memoryview) -> TimingCache | None: ...
    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool: ...
    def get_timing_cache(self) -> TimingCache | None: ...


class OptimizationProfile(Protocol):
    def set_shape(self, name: str, smallest: Iterable[int], best: Iterable[int], largest: Iterable[int], /) -> None: ...


class Builder(Protocol):
    def create_network(self, flags: int) -> Network | None: ...
    def create_builder_config(self) -> BuilderConfig: ...
    def create_optimization_profile(self) -> OptimizationProfile: ...
    def build_serialized_network(self, network: Network, config: BuilderConfig) -> Buffer | None: ...


class ParserError(Protocol):
    def desc(self) -> str: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class Parser(Protocol):
    """`OnnxParser`."""

    @property
    def num_errors(self) -> int: ...
    def get_error(self, index: int) -> ParserError: ...
    def parse_from_file(self, model: str) -> bool: ...


class ParsedModel:
    """Builder, network and parser, which live as long as this does: the network refers to the parser's weights."""

    def __init__(self, trt: ModuleType, log: TensorrtLog, path: Path, *, strongly_typed: bool) -> None:
        """Raises EngineBuildError with the parser's own words; of a file that is no model only the log says any."""
        self.builder: Builder = trt.Builder(log)
        # Explicit batch is all that TensorRT 10 has. The flag's number means something else in other versions.
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if strongly_typed else 0
        network = self.builder.create_network(flags)
        if network is None:
            raise EngineBuildError(f"{path}: TensorRT made no network with flags {flags:#x}; its log says why")
        self.network: Network = network
        if not trt.init_libnvinfer_plugins(log, ""):
            raise EngineBuildError(f"{path}: TensorRT's own plugins cannot be registered; its log says why")
        self._parser: Parser = trt.OnnxParser(network, log)
        with log.listening("ERROR", this_thread_only=True) as heard:
            is_parsed = self._parser.parse_from_file(str(path))
        if not is_parsed:
            said = self._words() or words_of(heard.lines)
            raise EngineBuildError(f"{path}: TensorRT cannot parse the model: {said}; {PARSER_REMEDY}")

    def _words(self) -> str:
        errors = [self._parser.get_error(index) for index in range(min(self._parser.num_errors, _SHOWN))]
        said = [f"{error.node_operator()} {error.node_name()}: {error.desc()}".strip() for error in errors]
        return "; ".join(printable(" ".join(each.split()), _TEXT_MAX_CHARS) for each in said)


def refuse_shape_inputs(network: Network) -> None:
    """Raises EngineBuildError for inputs whose values decide shapes: a profile here gives shapes, and no values."""
    inputs = (network.get_input(index) for index in range(network.num_inputs))
    found = [each.name for each in inputs if each.is_shape_tensor]
    if found:
        raise EngineBuildError(
            f"expected inputs whose values decide no shape, found {', '.join(found)}; make them constants of the model,"
            " or take the size from the shape of another input"
        )


def hold_to_fp32(trt: ModuleType, network: Network, nodes: Iterable[str]) -> tuple[str, ...]:
    """Constrain the layers that the parser made of these ONNX nodes; returns the layers' names, in their order.

    A layer says its node in its metadata, `[ONNX Layer: NODE]`, or bears its name. Some layers of a node say nothing:
    the square in ReduceSumSquare and ReduceL2, the logarithm in LogSoftmax (onnxOpImporters.cpp of onnx-tensorrt,
    10.1-GA). So what computes and says no node is held too where it gives to a held layer or takes from one. Layers on
    integers have no such precision, and are left. Raises EngineBuildError for a node without a layer: its constraint
    would be lost.
    """
    wanted = set(nodes)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    of = [_node_of(layer) for layer in layers]
    lost = sorted(wanted - set(of))
    if lost:
        raise EngineBuildError(
            f"expected a layer for each operation that mixed holds to fp32, found none for {', '.join(lost[:_SHOWN])};"
            " give the model precision fp16, or export it in the types that it is to have"
        )
    held = {index for index, node in enumerate(of) if node in wanted}
    computing = (trt.LayerType.ELEMENTWISE, trt.LayerType.UNARY)
    nameless = [index for index, layer in enumerate(layers) if not layer.metadata and layer.type in computing]
    while True:
        read = {name for index in held for name in _inputs(layers[index])}
        written = {name for index in held for name in _outputs(layers[index])}
        beside = {
            index
            for index in nameless
            if not (read.isdisjoint(_outputs(layers[index])) and written.isdisjoint(_inputs(layers[index])))
        }
        if beside <= held:
            break
        held |= beside
    # The tensor's type: get_output_type says float of a layer on INT64 too (`NvInfer.h` of 10.3, getOutputType).
    outputs = [(layers[index], layers[index].get_output(0)) for index in sorted(held)]
    floating = [layer for layer, output in outputs if output is not None and output.dtype == trt.float32]
    for layer in floating:
        layer.precision = trt.float32
    return tuple(layer.name for layer in floating)


def _inputs(layer: Layer) -> set[str]:
    """The tensors of one network have names of their own."""
    tensors = (layer.get_input(index) for index in range(layer.num_inputs))
    return {tensor.name for tensor in tensors if tensor is not None}


def _outputs(layer: Layer) -> set[str]:
    tensors = (layer.get_output(index) for index in range(layer.num_outputs))
    return {tensor.name for tensor in tensors if tensor is not None}


def _node_of(layer: Layer) -> str:
    """processMetadata of onnx-tensorrt closes with a bracket, and a node's name may hold one as well."""
    if not layer.metadata.startswith(_OF_NODE):
        return layer.name
    return layer.metadata.removeprefix(_OF_NODE).rpartition("]")[0].partition(_OF_FUNCTION)[0]
