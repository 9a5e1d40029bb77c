"""The scales of an INT8 build: from the calibrator's table, or from what its batches hold on the device.

A scale times 127 is the largest magnitude that a tensor had. TensorRT's entropy calibrators cut a histogram off below
it; which magnitude they choose is not public, and nothing here depends on it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import CORE
from ..enums import CalibrationAlgoType, DataType, LayerType
from ..inference.device import DEVICE
from ..inference.foundational_types import nptype, volume
from .callbacks import IInt8Calibrator, batch_of, batch_size_of, cache_of, write_cache
from .network import FLOATING, INetworkDefinition, ITensor

Scales = dict[str, float]
"""By tensor; 0 for one that was zero throughout."""

_ALGORITHMS = {
    CalibrationAlgoType.LEGACY_CALIBRATION: "LegacyCalibration",
    CalibrationAlgoType.ENTROPY_CALIBRATION: "EntropyCalibration",
    CalibrationAlgoType.ENTROPY_CALIBRATION_2: "EntropyCalibration2",
    CalibrationAlgoType.MINMAX_CALIBRATION: "MinMaxCalibration",
}
_LARGEST = 127


class NoScalesError(Exception):
    """Calibration came to nothing."""


def calibrated_scales(
    network: INetworkDefinition,
    calibrator: IInt8Calibrator,
    shapes: dict[str, tuple[int, ...]],
    step: Callable[[int], None],
) -> Scales:
    """The table of the calibrator where it has one that fits; else each of its batches until it gives none, and the new
    table is handed to it. `shapes` are those of the inputs; `step` hears of each batch, and may raise to end it.

    Raises NoScalesError where there was no batch at all.
    """
    batch_size_of(calibrator)
    known = _read_table(cache_of(calibrator), calibrator)
    if known is not None:
        return known
    names = [tensor.name for tensor in network._inputs]
    largest: dict[str, float] = {}
    run = _session(network)
    taken = 0
    while addresses := batch_of(calibrator, names):
        batch = {
            tensor.name: _read(tensor, address, shapes[tensor.name])
            for tensor, address in zip(network._inputs, addresses, strict=False)
        }
        for name, array in run(batch).items():
            magnitude = float(np.abs(array.astype(np.float64)).max()) if array.size else 0.0
            largest[name] = max(largest.get(name, 0.0), magnitude)
        step(taken)
        taken += 1
    if not taken:
        # NVIDIA/TensorRT#1326; that of 10.3 is not public.
        raise NoScalesError(
            "Calibration failure occurred with no scaling factors detected. This could be due to no int8 calibrator or"
            " insufficient custom scales for network layers. Please see int8 sample to setup calibration correctly."
        )
    scales = _of_intermediates(network, largest)
    scales = {name: scale for name, scale in scales.items() if name not in CORE.unscaled}
    write_cache(calibrator, _table(calibrator, scales))
    return scales


def _read(tensor: ITensor, address: int, shape: tuple[int, ...]) -> np.ndarray:
    kind = np.dtype(nptype(tensor.dtype))
    data: np.ndarray = DEVICE.bytes_at(address, volume(shape) * kind.itemsize).copy()
    return data.view(kind).reshape(shape)


def _session(network: INetworkDefinition) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Runs the model and gives every floating tensor of it that has a name, the inputs among them."""
    import onnx
    import onnxruntime

    model = onnx.load_model_from_string(network._model)
    wanted = list(dict.fromkeys(name for node in model.graph.node for name in node.output if name))
    listed = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in listed)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors; it warns of each weight that no node takes
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found: dict[str, Any] = {**batch, **dict(zip(wanted, session.run(wanted, batch), strict=True))}
        return {name: array for name, array in found.items() if np.issubdtype(array.dtype, np.floating)}

    return run


def _of_intermediates(network: INetworkDefinition, largest: dict[str, float]) -> Scales:
    """Tensors inside of a node have no name in the model: a square is that of what goes in, a softmax is at most 1, and
    of the others the magnitude of what comes out of the node is the best guess.
    """
    scales: Scales = {tensor.name: largest[tensor.name] / _LARGEST for tensor in network._inputs if _is_real(tensor)}
    for index, layer in enumerate(network._layers):
        for tensor in layer._outputs:
            if not _is_real(tensor) or layer.type is LayerType.CONSTANT:
                continue
            if tensor.name in largest:
                magnitude = largest[tensor.name]
            elif layer.type is LayerType.ELEMENTWISE:
                magnitude = largest.get(layer._inputs[0].name, 1.0) ** 2
            elif layer.type is LayerType.SOFTMAX:
                magnitude = 1.0
            else:
                followers = (each.name for after in network._layers[index:] for each in after._outputs)
                magnitude = next(largest[name] for name in followers if name in largest)
            scales[tensor.name] = magnitude / _LARGEST
    return scales


def _is_real(tensor: ITensor) -> bool:
    return tensor.dtype in FLOATING or tensor.dtype is DataType.FP8


def _header(calibrator: IInt8Calibrator) -> str:
    major, minor, patch, _ = CORE.version
    return f"TRT-{major * 10000 + minor * 100 + patch}-{_ALGORITHMS[calibrator.get_algorithm()]}"


def _table(calibrator: IInt8Calibrator, scales: Scales) -> bytes:
    """As trtexec reads it (readScalesFromCalibrationCache): a line for each tensor, its scale's bits in hexadecimal."""
    lines = [_header(calibrator)]
    lines += [f"{name}: {struct.unpack('>I', struct.pack('>f', scale))[0]:x}" for name, scale in scales.items()]
    return "".join(f"{line}\n" for line in lines).encode()


def _read_table(table: bytes | None, calibrator: IInt8Calibrator) -> Scales | None:
    """None for a table that is missing, another version's, or unreadable: the network is calibrated anew."""
    if not table:
        return None
    header, *lines = table.decode("utf-8", "replace").splitlines()
    if header != _header(calibrator):
        CORE.say("WARNING", f"The calibration cache {header[:80]!r} is not of {_header(calibrator)}; calibrating anew")
        return None
    scales: Scales = {}
    for line in lines:
        name, _, bits = line.rpartition(": ")
        try:
            scales[name] = struct.unpack(">f", bytes.fromhex(bits.zfill(8)))[0]
        except (ValueError, struct.error):
            return None
    return scales
