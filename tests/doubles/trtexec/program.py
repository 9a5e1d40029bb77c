"""What trtexec does with its options (`samples/trtexec/trtexec.cpp`, `samples/common/sampleEngines.cpp`, v10.3.0)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .calibrator import TableCalibrator
from .console import Log, Recorder, say
from .options import OptionError, Options, parse
from .timings import attach_timings, keep_timings

if TYPE_CHECKING:
    from tests.doubles import tensorrt as trt
    from tests.doubles.cuda.bindings import runtime as cuda
    from tests.doubles.tensorrt.core import CORE
else:
    import tensorrt as trt
    from cuda.bindings import runtime as cuda
    from tensorrt.core import CORE

_DTYPES = {"fp32": trt.float32, "fp16": trt.float16, "int8": trt.int8}


def main(arguments: list[str]) -> int:
    """The exit code: 0 after PASSED, 1 after FAILED, or without a verdict where there is no device."""
    major, minor, patch, _ = CORE.version
    test = f"TensorRT.trtexec [TensorRT v{major * 10000 + minor * 100 + patch}] # {' '.join(arguments)}"
    print(f"&&&& RUNNING {test}", flush=True)
    is_passed = False
    try:
        options = parse(arguments[1:])
        for text in options.warnings:
            say("W", text)
        if _set_device(options.device):
            return 1
        say("I", f"TensorRT version: {major}.{minor}.{patch}")
        is_passed = _Build(options).run()
        if not is_passed:
            say("E", "Engine set up failed")
    except OptionError as error:
        print("=== Model Options ===")
        say("E", str(error))
    except Exception as error:  # noqa: BLE001 - as trtexec's own main
        say("E", f"Uncaught exception detected: {error}")
    print(f"&&&& {'PASSED' if is_passed else 'FAILED'} {test}", flush=True)
    return 0 if is_passed else 1


def _set_device(index: int) -> bool:
    """True where there is none: that is said as information, and the program ends without a verdict (setCudaDevice)."""
    say("I", "=== Device Information ===")
    code, found = cuda.cudaGetDeviceCount()
    count = 0 if code else int(found or 0)
    if count <= 0:
        say("I", "Cannot find any available devices (GPUs)!")
        return True
    if not 0 <= index < count:
        say("I", f"Cannot find device ID {index}!")
        return True
    cuda.cudaSetDevice(index)
    return False


class _Build:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._log = Log()

    def run(self) -> bool:
        """modelToBuildEnv and what main does after it."""
        plan = self._plan()
        if plan is None:
            say("E", "Failed to create engine from model or file.")
            return False
        if self._options.save_engine:
            try:
                Path(self._options.save_engine).write_bytes(plan)
            except OSError:
                say("E", "Saving engine to file failed.")
                say("E", "Failed to create engine from model or file.")
                return False
        if not self._options.skip_inference:
            say("E", "No part of this double: inference")
            return False
        if trt.Runtime(self._log).deserialize_cuda_engine(plan) is None:
            say("E", "Engine deserialization failed")
            return False
        say("I", "Skipped inference phase since --skipInference is added.")
        return True

    def _plan(self) -> bytes | None:
        builder = trt.Builder(self._log)
        builder.error_recorder = Recorder()
        network = builder.create_network(
            1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if self._options.strongly_typed else 0
        )
        if network is None:
            say("E", "Network creation failed")
            return None
        trt.init_libnvinfer_plugins(self._log, "")
        say("I", "Start parsing network model.")
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse_from_file(self._options.onnx):
            say("E", "Failed to parse onnx file")
            say("E", "Parsing model failed")
            return None
        config = builder.create_builder_config()
        if not self._set_up(builder, network, config):
            say("E", "Network And Config setup failed")
            say("E", "Building engine failed")
            return None
        attach_timings(self._options.timing_cache_file, config)
        memory = builder.build_serialized_network(network, config)
        if memory is None:
            say("E", "Engine could not be created from network")
            say("E", "Building engine failed")
            return None
        keep_timings(self._options.timing_cache_file, builder, config)
        say("I", f"Created engine with size: {memory.nbytes / 2**20} MiB")
        return bytes(memoryview(memory))

    def _set_up(self, builder: Any, network: Any, config: Any) -> bool:
        """setupNetworkAndConfig."""
        options, flag = self._options, trt.BuilderFlag
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        names = {tensor.name for tensor in inputs}
        for name in options.ranges:
            if name not in names:
                say("E", f'Cannot find input tensor with name "{name}" in the network inputs!')
                return False
        if not self._add_profile(builder, network, config, inputs):
            return False
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        config.builder_optimization_level = options.optimization_level
        config.profiling_verbosity = trt.ProfilingVerbosity(options.verbosity)
        if not options.tf32:
            config.clear_flag(flag.TF32)
        for wanted, each in ((options.fp16, flag.FP16), (options.int8, flag.INT8)):
            if wanted:
                config.set_flag(each)
        if options.int8:
            self._set_scales(builder, network, config, inputs)
        if options.constraints != "none":
            config.set_flag(getattr(flag, f"{options.constraints.upper()}_PRECISION_CONSTRAINTS"))
            for layer in network:
                if layer.name in options.layer_precisions:
                    layer.precision = _DTYPES[options.layer_precisions[layer.name]]
                    say("I", f"Set layer {layer.name} to precision {layer.precision.name}")
        return True

    def _add_profile(self, builder: Any, network: Any, config: Any, inputs: list[Any]) -> bool:
        """Only dynamic inputs take their ranges; one without gets 1 for each dynamic dimension, with a warning."""
        ranges = self._options.ranges
        tensors = itertools.chain(inputs, (network.get_output(index) for index in range(network.num_outputs)))
        if not any(-1 in tensor.shape[:] or tensor.is_shape_tensor for tensor in tensors):
            if ranges:
                say(
                    "E",
                    "Static model does not take explicit shapes since the shape of inference tensors will be"
                    " determined by the model itself",
                )
            return not ranges
        profile = builder.create_optimization_profile()
        for tensor in inputs:
            if -1 not in tensor.shape[:]:
                continue
            ones = tuple(max(extent, 1) for extent in tensor.shape[:])
            if tensor.name not in ranges:
                say(
                    "W",
                    f"Dynamic dimensions required for input: {tensor.name}, but no shapes were provided."
                    f" Automatically overriding shape to: {'x'.join(map(str, ones))}",
                )
            profile.set_shape(tensor.name, *ranges.get(tensor.name, [ones] * 3))
        return bool(profile) and config.add_optimization_profile(profile) >= 0

    def _set_scales(self, builder: Any, network: Any, config: Any, inputs: list[Any]) -> None:
        """Without `--calib`, ranges that nobody measured: 2 for what goes in, 4 for what comes out."""
        quantizing = (trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE)
        if not self._options.calib and not any(layer.type in quantizing for layer in network):
            for layer in network:
                for tensor in (layer.get_input(index) for index in range(layer.num_inputs)):
                    tensor.set_dynamic_range(-2.0, 2.0)
                for tensor in (layer.get_output(index) for index in range(layer.num_outputs)):
                    tensor.set_dynamic_range(-4.0, 4.0)
            return
        shapes = {tensor.name: tensor.shape[:] for tensor in inputs}
        if self._options.calibration_ranges:
            profile = builder.create_optimization_profile()
            for tensor in inputs:
                if tensor.name not in self._options.calibration_ranges:
                    raise ValueError(f"Calibration profile for tensor {tensor.name} cannot be found!")
                shapes[tensor.name] = self._options.calibration_ranges[tensor.name][1]
                profile.set_shape(tensor.name, *[shapes[tensor.name]] * 3)
            if not config.set_calibration_profile(profile):
                raise ValueError("Error in set calibration profile")
        config.int8_calibrator = TableCalibrator(self._options.calib, shapes)
