"""In which precisions the layers of a built engine compute, as TensorRT's engine inspector tells it.

The inspector's JSON at verbosity DETAILED, by the examples that NVIDIA publishes with its engine explorer
(tools/experimental/trt-engine-explorer/examples, tag v10.3.0):

    {"Layers": [{"Name": "Conv_0", "LayerType": "CaskConvolution",
                 "Inputs": [{"Name": "x", "Dimensions": [1,3,8,8], "Format/Datatype": "Channel major FP16 format ..."}],
                 "Outputs": [...]}, ...], "Bindings": [...]}

The precision of a layer is the narrowest of its inputs' types, or of its outputs' where it has no input. `Reformat` and
`NoOp` move data and compute nothing: they are counted as `moved`. Where several layers became one (a foreign node),
only what goes in and comes out is known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import msgspec

from runtimes.inference_runtime import Precision

MOVED = "moved"
OTHER = "other"
"""A layer on integers or booleans."""
UNTOLD = "untold"
"""A layer of whose tensors the inspector gives no type that is known here."""

_MOVES = ("Reformat", "NoOp")
_NARROWEST_FIRST = ("int4", "fp8", "int8", "bf16", "fp16", "fp32")
_TYPES = (
    (re.compile(r"\bINT4\b"), "int4"),
    (re.compile(r"\bFP8\b|\bE4M3"), "fp8"),
    (re.compile(r"\bINT8\b"), "int8"),
    (re.compile(r"\bBF16\b|\bBFLOAT16\b"), "bf16"),
    (re.compile(r"\bFP16\b|\bHALF\b|\bFLOAT16\b"), "fp16"),
    (re.compile(r"\bFP32\b|\bFLOAT\b|\bFLOAT32\b|\bTF32\b"), "fp32"),
    (re.compile(r"\bU?INT(8|32|64)\b|\bBOOL\b"), OTHER),
)
_NEEDS: dict[Precision, tuple[str, ...]] = {"fp16": ("fp16",), "int8": ("int8",), "mixed": ("fp16", "int8")}
"""Of which at least one layer must compute in one."""


class _Tensor(msgspec.Struct, rename={"datatype": "Format/Datatype"}):
    datatype: str = ""


class _Layer(msgspec.Struct):
    kind: str = msgspec.field(default="", name="LayerType")
    inputs: list[_Tensor] = msgspec.field(default_factory=list, name="Inputs")
    outputs: list[_Tensor] = msgspec.field(default_factory=list, name="Outputs")


class _Engine(msgspec.Struct):
    layers: list[_Layer] = msgspec.field(name="Layers")


def count_precisions(information: str) -> dict[str, int]:
    """Pure. The number of layers by precision, the names sorted.

    Raises ValueError for what is no inspector's JSON with details of every layer.
    """
    try:
        engine = msgspec.json.decode(information, type=_Engine)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"expected the inspector's JSON with the inputs and outputs of every layer, found {information[:80]!r}"
            f" ({str(error)[:200]})"
        ) from error
    return dict(sorted(Counter(_precision(layer) for layer in engine.layers).items()))


def why_not_built_as(precision: Precision, counts: Mapping[str, int]) -> str:
    """Pure. Says that no layer computes in what was asked for, and what to do; "" where one does.

    An engine without a floating or quantised layer has nothing that could be narrower. Layers of which nothing is told
    prove nothing.
    """
    needed = _NEEDS.get(precision, ())
    if any(counts.get(each) for each in needed) or not any(counts.get(each) for each in _NARROWEST_FIRST):
        return ""
    found = ", ".join(f"{count} in {name}" for name, count in counts.items() if name != MOVED)
    return (
        f"expected layers in {' or '.join(needed)}, found {found}: TensorRT took the flag for the permission that it is"
        " and used none of it; export the model in that precision, so that it is built strongly typed"
    )


def _precision(layer: _Layer) -> str:
    if layer.kind in _MOVES:
        return MOVED
    found = {_type_of(tensor.datatype) for tensor in layer.inputs or layer.outputs} or {UNTOLD}
    return next((name for name in (*_NARROWEST_FIRST, UNTOLD) if name in found), OTHER)


def _type_of(text: str) -> str:
    return next((name for pattern, name in _TYPES if pattern.search(text.upper())), UNTOLD)
