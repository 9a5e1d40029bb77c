"""The ONNX parser: real ONNX into a network (`python/src/parsers/pyOnnx.cpp` of tag v10.3.0; ModelImporter.cpp and
ImporterContext.cpp of onnx/onnx-tensorrt, 10.1-GA)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core import CORE
from ..enums import DataType, ErrorCode, LayerType, OnnxParserFlag
from ..inference.bound import Product, incompatible
from .network import ILayer, INetworkDefinition, ITensor
from .operators import KIND_NAMES, LAYERS, SHAPE_INPUTS, WEIGHTS_INSIDE

_TYPES = {
    "FLOAT": DataType.FLOAT,
    "FLOAT16": DataType.HALF,
    "BFLOAT16": DataType.BF16,
    "INT8": DataType.INT8,
    "UINT8": DataType.UINT8,
    "INT32": DataType.INT32,
    "INT64": DataType.INT64,
    "BOOL": DataType.BOOL,
}
_NO_PLUGIN = "Plugin not found, are the plugin name, version, and namespace correct?"


class ParserError(Product):
    """Each of its members is a method."""

    _code: ErrorCode
    _desc: str
    _node: int
    _node_name: str
    _node_operator: str

    @classmethod
    def _made(cls, code: ErrorCode, desc: str, node: int, name: str, operator: str) -> ParserError:
        made = cls.__new__(cls)
        made._code, made._desc, made._node, made._node_name, made._node_operator = code, desc, node, name, operator
        return made

    def code(self) -> ErrorCode:
        return self._code

    def desc(self) -> str:
        return self._desc

    def file(self) -> str:
        return "onnxOpImporters.cpp"

    def line(self) -> int:
        return 0

    def func(self) -> str:
        return "importFallbackPluginImporter"

    def node(self) -> int:
        return self._node

    def node_name(self) -> str:
        return self._node_name

    def node_operator(self) -> str:
        return self._node_operator

    def local_function_stack(self) -> list[str]:
        return []

    def local_function_stack_size(self) -> int:
        return 0


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        if not isinstance(network, INetworkDefinition):
            raise incompatible("__init__", network, logger)
        self.flags = 1 << int(OnnxParserFlag.NATIVE_INSTANCENORM)
        self._network = network
        self._errors: list[ParserError] = []

    def parse_from_file(self, model: str) -> bool:
        """False with errors, or, where the file is no model, with a line in the log and none."""
        if not isinstance(model, str):
            raise incompatible("parse_from_file", model)
        failure = CORE.injected("parse_from_file")
        if failure is not None:
            self._fail(ErrorCode.INTERNAL_ERROR, failure.text, -1, "", "")
            return False
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        try:
            data = Path(model).read_bytes()
            proto = onnx.load_model_from_string(data)
        except (OSError, DecodeError):
            proto = None
        if proto is None or not proto.graph.node:
            CORE.say("ERROR", f"Failed to parse ONNX model from file: {model}!")
            return False
        return self._import(proto, data)

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError | None:
        return self._errors[index] if 0 <= index < len(self._errors) else None

    def clear_errors(self) -> None:
        self._errors.clear()

    def set_flag(self, flag: OnnxParserFlag) -> None:
        self.flags |= 1 << int(flag)

    def clear_flag(self, flag: OnnxParserFlag) -> None:
        self.flags &= ~(1 << int(flag))

    def get_flag(self, flag: OnnxParserFlag) -> bool:
        return bool(self.flags >> int(flag) & 1)

    def _fail(self, code: ErrorCode, desc: str, node: int, name: str, operator: str) -> None:
        self._errors.append(ParserError._made(code, desc, node, name, operator))
        if node >= 0:
            CORE.say("ERROR", f'While parsing node number {node} [{operator} -> "{name}"]:')
        CORE.say("ERROR", f"ERROR: onnxOpImporters.cpp:0 In function importFallbackPluginImporter:\n[{code}] {desc}")

    def _import(self, proto: Any, data: bytes) -> bool:
        for index, node in enumerate(proto.graph.node):
            if node.domain not in ("", "ai.onnx") or node.op_type not in LAYERS:
                self._fail(ErrorCode.UNSUPPORTED_NODE, _NO_PLUGIN, index, node_name(node), node.op_type)
                return False
        _Import(self._network, proto, data).run()
        return True


def node_name(node: Any) -> str:
    """getNodeName of importerUtils.cpp."""
    return str(node.name) if node.name or not node.output else f"node_of_{node.output[0]}"


class _Import:
    def __init__(self, network: INetworkDefinition, proto: Any, data: bytes) -> None:
        import onnx

        self._network = network
        self._data = data
        self._proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        self._weights = {each.name: each for each in self._proto.graph.initializer}
        self._values = {
            each.name: each
            for each in (*self._proto.graph.input, *self._proto.graph.value_info, *self._proto.graph.output)
        }
        self._tensors: dict[str, ITensor] = {}
        self._names: set[str] = set()
        self._suffix = 0

    def run(self) -> None:
        graph, network = self._proto.graph, self._network
        network._model = self._data
        for node in graph.node:
            if node.op_type == "Constant":
                self._weights[node.output[0]] = next(each.t for each in node.attribute if each.name == "value")
        deciding = _deciding(graph)
        for value in graph.input:
            if value.name not in self._weights:
                tensor = self._tensor(value.name)
                tensor._is_input, tensor._decides_shapes = True, value.name in deciding
                network._inputs.append(tensor)
        for node in graph.node:
            self._add(node)
        for value in graph.output:
            tensor = self._tensor(value.name)
            tensor._is_output = True
            network._outputs.append(tensor)

    def _add(self, node: Any) -> None:
        made = LAYERS[node.op_type]
        if not made:
            return
        of = node_name(node)
        inputs = tuple(
            self._given(node, name)
            for name in node.input
            if name and (name not in self._weights or node.op_type not in WEIGHTS_INSIDE)
        )
        outputs = tuple(self._tensor(name) for name in node.output if name)
        for position, layer in enumerate(made):
            is_last = position == len(made) - 1
            given = inputs
            produced = outputs
            if not is_last:
                title = f"(Unnamed Layer* {len(self._network._layers)}) [{KIND_NAMES.get(layer.kind, layer.kind.name)}]"
                produced = (ITensor._made(f"{title}_output", outputs[0].dtype, outputs[0]._shape),)
            self._append(layer.kind, given, produced, of if layer.is_registered else "", of)
            inputs = produced

    def _given(self, node: Any, name: str) -> ITensor:
        """convertToTensor: weights become a constant layer, one for each name. That of a quantisation's scale is
        registered with the node (QuantDequantLinearHelper), so that it has its metadata, and its own name.
        """
        if name in self._weights and name not in self._tensors:
            is_scale = node.op_type in ("QuantizeLinear", "DequantizeLinear")
            layer = self._append(LayerType.CONSTANT, (), (self._tensor(name),), name, node_name(node))
            if not is_scale:
                layer.metadata = ""
        return self._tensor(name)

    def _append(
        self, kind: LayerType, inputs: tuple[ITensor, ...], outputs: tuple[ITensor, ...], name: str, of: str
    ) -> ILayer:
        index = len(self._network._layers)
        title = f"(Unnamed Layer* {index}) [{KIND_NAMES.get(kind, kind.name.title())}]"
        layer = ILayer._made(kind, self._unique(name) if name else title, inputs, outputs, self._network._typed())
        if name:
            layer.metadata = f"[ONNX Layer: {of}]"
        self._network._layers.append(layer)
        return layer

    def _unique(self, name: str) -> str:
        """generateUniqueName of ImporterContext.hpp: the name, or the name with one suffix that counts."""
        candidate = name
        while candidate in self._names:
            candidate, self._suffix = f"{name}_{self._suffix}", self._suffix + 1
        self._names.add(candidate)
        return candidate

    def _tensor(self, name: str) -> ITensor:
        if name not in self._tensors:
            import onnx

            if name in self._weights:
                weights = self._weights[name]
                kind, shape = weights.data_type, tuple(weights.dims)
            else:
                held = self._values[name].type.tensor_type if name in self._values else None
                kind = onnx.TensorProto.FLOAT if held is None else held.elem_type
                dims = [] if held is None else held.shape.dim
                shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)
            # NVIDIA/TensorRT#4058 has "encoder.layer.2.attention.output.LayerNorm.weight_output" for a weight.
            title = f"{name}_output" if name in self._weights else name
            self._tensors[name] = ITensor._made(title, _TYPES[onnx.TensorProto.DataType.Name(kind)], shape)
        return self._tensors[name]


def _deciding(graph: Any) -> set[str]:
    """The tensors that shapes are computed from, but for what comes from shapes themselves."""
    makers = {output: node for node in graph.node for output in node.output}
    found: set[str] = set()
    todo = [
        node.input[index]
        for node in graph.node
        for index in SHAPE_INPUTS.get(node.op_type, ())
        if index < len(node.input)
    ]
    while todo:
        name = todo.pop()
        if not name or name in found:
            continue
        found.add(name)
        maker = makers.get(name)
        if maker is not None and maker.op_type != "Shape":
            todo += maker.input
    return found
