"""Which types an ONNX model computes in by itself, and which of its operations lose most in fp16."""

from __future__ import annotations

import msgspec

from runtimes.inference_runtime import Precision
from runtimes.onnx_model import AuditedModel, audit_onnx, name_nodes, narrow_types
from runtimes.source_model import SourceModel

DELICATE_OPS = (
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "LogSoftmax",
    "Pow",
    "ReduceL2",
    "ReduceMean",
    "ReduceSumSquare",
    "Softmax",
)
"""Sums of many terms and their squares, which leave fp16's range of 65504 or its 11 bits. TensorRT itself warns of the
first kind: "Running layernorm after self-attention in FP16 may cause overflow", and proposes to hold it to fp32."""


class OnnxTypes(msgspec.Struct, frozen=True, kw_only=True):
    """`narrow` are the types below fp32 that the model has in it: fp16, bf16, int8.

    `delicate` are the names of the nodes of `DELICATE_OPS`, in the model's order.
    """

    narrow: tuple[str, ...] = ()
    delicate: tuple[str, ...] = ()


def audit_typed(source: SourceModel, precision: Precision) -> tuple[AuditedModel, OnnxTypes]:
    """The model, audited for a library that brings an fp32 model to the precision itself, and the types it has.

    A model that has fp16 in it already is taken as it is, so for `fp16` it must be fp16 throughout. The delicate
    operations of the audited model all have names. Raises as `audit_onnx` does.
    """
    model = audit_onnx(source, "mixed")
    narrow = tuple(narrow_types(model.data))
    if precision == "fp16" and narrow == ("fp16",):
        audit_onnx(source, "fp16")
    data, delicate = name_nodes(model.data, DELICATE_OPS)
    return msgspec.structs.replace(model, data=data), OnnxTypes(narrow=narrow, delicate=delicate)
