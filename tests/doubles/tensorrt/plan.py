"""What the double's engines are as bytes: the public header of a plan, then all that is needed to run it.

The header is the one that `samples/common/sampleEngines.cpp` of tag v10.3.0 reads (printPlanVersion); what follows it
in a plan of TensorRT's is not public, and here it is the ONNX model and what the builder made of it.
"""

from __future__ import annotations

import struct

import msgspec

_HEADER = struct.Struct("<4sI16x4B")

Shape = tuple[int, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`profiles` are ranges (input, min, opt, max) by profile. `layers` is the inspector's JSON.

    `plugins` are creators without which no runtime can load the engine. `device` is the GPU that it was built on, and
    `compute` its compute capability. `on_host` are inputs and outputs that are shapes' values; `values` are what the
    profiles allow of such an input, as ranges (input, min, opt, max) by profile. `formats` are memory layouts, by the
    number in `TensorFormat`, of what is not LINEAR.
    """

    onnx: bytes
    profiles: tuple[tuple[tuple[str, Shape, Shape, Shape], ...], ...] = ((),)
    layers: str = '{"Layers": [], "Bindings": []}'
    name: str = ""
    activation_bytes: int = 4096
    host_code: bool = False
    plugins: tuple[str, ...] = ()
    device: str = "double"
    compute: str = "8.7"
    on_host: tuple[str, ...] = ()
    values: tuple[tuple[tuple[str, Shape, Shape, Shape], ...], ...] = ((),)
    formats: dict[str, int] = {}


def encode(plan: Plan, version: tuple[int, int, int, int]) -> bytes:
    return _HEADER.pack(b"ftrt", 0, *version) + msgspec.msgpack.encode(plan)


def decode(data: bytes) -> tuple[Plan, tuple[int, int, int, int]]:
    """Raises ValueError for what is no plan of the double."""
    if len(data) <= _HEADER.size:
        raise ValueError("too short")
    magic, layout, major, minor, patch, build = _HEADER.unpack_from(data)
    if magic != b"ftrt" or layout != 0:
        raise ValueError("magic")
    try:
        plan = msgspec.msgpack.decode(data[_HEADER.size :], type=Plan)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    return plan, (major, minor, patch, build)
