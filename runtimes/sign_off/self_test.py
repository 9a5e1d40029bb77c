"""Known answers: what an engine gave for fixed inputs when it was signed off, held against what it gives now.

A hash says that the file is the one that was provisioned. It does not say that the library, the driver and the device
still make of it what they did then: one run does. The answers are an .npz file beside the engine, with `input/NAME`
and `output/NAME` for each tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from messages import ConfigError, DeviceContextError, DeviceFaultError, InferenceError, SelfTestError
from messages.tensor import TENSORS_MAX
from runtimes.inference_runtime import EngineHandle, InferenceRuntime
from runtimes.npz_file import decode_npz, encode_npz
from runtimes.sign_off.accuracy import IncomparableOutputsError, compare, faults_over
from runtimes.store.engine_artifact import SELF_TEST_MAX_BYTES, self_test_path

SELF_TEST_TOLERANCE = 1e-3
"""Relative error of an output. The same engine on the same host and library repeats itself nearly bit for bit."""

_INPUT, _OUTPUT = "input/", "output/"
_REMEDY = (
    "the engine does not compute what it did when it was provisioned: provision again on this machine (c7 provision"
    " FLIGHT.toml), and if it fails again do not fly with this device"
)


class AnswersTooLargeError(Exception):
    """Inputs and outputs together are more than `SELF_TEST_MAX_BYTES`; the text says how much."""


def record_known_answers(runtime: InferenceRuntime, handle: EngineHandle, inputs: Mapping[str, np.ndarray]) -> bytes:
    """Run the engine once and write down inputs and outputs. Equal answers are equal bytes.

    Raises AnswersTooLargeError, and what `infer` raises.
    """
    outputs = _run(runtime, handle, inputs)
    tensors = {
        **{_INPUT + name: array for name, array in inputs.items()},
        **{_OUTPUT + name: array for name, array in outputs.items()},
    }
    size_bytes = sum(array.nbytes for array in tensors.values())
    if size_bytes > SELF_TEST_MAX_BYTES:
        raise AnswersTooLargeError(f"{size_bytes} bytes of inputs and outputs, at most {SELF_TEST_MAX_BYTES} are kept")
    return encode_npz(tensors)


def check_known_answers(runtime: InferenceRuntime, handle: EngineHandle, answers: bytes, tolerance: float) -> None:
    """Run the engine once on the recorded inputs and compare each output with the recorded one.

    `tolerance` bounds the relative error of each output, of integers and booleans the share that differs. Raises
    SelfTestError naming the outputs, expected and found; OutOfMemoryError, DeviceContextError, DeviceFaultError.
    """
    model = handle.entry.model
    inputs, expected = _decode(self_test_path(handle.entry.path), answers)
    try:
        faults = faults_over(compare([(_run(runtime, handle, inputs), expected)]), tolerance)
    except (DeviceContextError, DeviceFaultError):
        raise  # these say something of the device, and not of this engine
    except (InferenceError, IncomparableOutputsError) as error:
        faults = [str(error)]
    if faults:
        raise SelfTestError(f"{model}: self-test failed: {'; '.join(faults)}; {_REMEDY}")


def _run(runtime: InferenceRuntime, handle: EngineHandle, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.asarray(tensor) for name, tensor in runtime.infer(handle, inputs).items()}


def _decode(path: Path, answers: bytes) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    try:
        tensors = decode_npz(path, answers, max_bytes=2 * SELF_TEST_MAX_BYTES, arrays_max=2 * TENSORS_MAX)
    except ConfigError as error:
        raise SelfTestError(f"{error}; {_REMEDY}") from error
    inputs = {name.removeprefix(_INPUT): array for name, array in tensors.items() if name.startswith(_INPUT)}
    outputs = {name.removeprefix(_OUTPUT): array for name, array in tensors.items() if name.startswith(_OUTPUT)}
    if not outputs or len(inputs) + len(outputs) != len(tensors):
        raise SelfTestError(
            f"{path}: expected arrays named {_INPUT}... and {_OUTPUT}..., found {', '.join(tensors) or 'none'};"
            f" {_REMEDY}"
        )
    return inputs, outputs
