"""Programs for a process that may not be fit for anything afterwards: `python -m ... NAME [ARGUMENT]` prints one JSON.

They leave without their destructors: what they ask about is what a destructor may not survive.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from messages import C7Error
from runtimes.config import C7InferenceConfig
from runtimes.cuda.cuda_bindings import open_cuda
from runtimes.cuda.port import Cuda
from runtimes.store.engine_artifact import read_entry
from runtimes.tensorrt.inference.engine import EngineLoader, LoadedEngine
from runtimes.tensorrt.inference.io_tensors import shape_of
from runtimes.tensorrt.library import import_tensorrt
from runtimes.tensorrt.log import process_log
from runtimes.tensorrt_runtime import TensorrtRuntime

NOBODYS_ADDRESS = 0x100
ROOM_BYTES = 1 << 20


def runtime_without_cuda() -> dict[str, Any]:
    """What our own runtime does."""
    try:
        TensorrtRuntime(C7InferenceConfig(runtime="tensorrt"))
    except C7Error as error:
        return {"raised": type(error).__name__, "text": str(error)}
    return {"raised": "", "text": ""}


def raw_runtime_without_cuda() -> dict[str, Any]:
    return _made_without_cuda("Runtime")


def raw_builder_without_cuda() -> dict[str, Any]:
    return _made_without_cuda("Builder")


def _made_without_cuda(name: str) -> dict[str, Any]:
    trt = import_tensorrt()
    log = process_log(trt)
    with log.listening("WARNING") as heard:
        try:
            made = getattr(trt, name)(log)
        except TypeError as error:
            return {"made": False, "raised": str(error), "errors": [line.text for line in heard.errors]}
        found = {"made": True, "raised": "", "errors": [line.text for line in heard.errors]}
    _leave(found)
    del made  # never reached: to destroy it may end the process
    return found


def copy_past_the_end() -> dict[str, Any]:
    """From a block into page-locked memory that is large enough: nothing is overwritten, whatever CUDA lets pass."""
    cuda, library = open_cuda(0), _library()
    block, pinned, stream = cuda.allocate(ROOM_BYTES), cuda.allocate_pinned(2 * ROOM_BYTES), cuda.open_stream()
    kind = library.cudaMemcpyKind.cudaMemcpyDeviceToHost
    (at_the_call,) = library.cudaMemcpyAsync(pinned.address, block.address, 2 * ROOM_BYTES, kind, stream.handle)
    (afterwards,) = library.cudaStreamSynchronize(stream.handle)
    return {"at_the_call": int(at_the_call), "afterwards": int(afterwards)}


def end_a_capture_on_another_thread() -> dict[str, Any]:
    from concurrent.futures import ThreadPoolExecutor

    cuda, library = open_cuda(0), _library()
    stream = cuda.open_stream()
    mode = library.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    codes = [int(library.cudaStreamBeginCapture(stream.handle, mode)[0])]
    with ThreadPoolExecutor(1) as pool:
        codes.append(int(pool.submit(library.cudaStreamEndCapture, stream.handle).result(timeout=60)[0]))
    codes.append(int(library.cudaStreamEndCapture(stream.handle)[0]))
    codes.append(int(library.cudaStreamEndCapture(stream.handle)[0]))
    codes.append(int(library.cudaStreamSynchronize(stream.handle)[0]))
    return {"codes": codes}


def poison(engine: str) -> dict[str, Any]:
    """An engine writes where nothing is, and every call is asked for its code afterwards."""
    cuda = open_cuda(0)
    stream, block, pinned = cuda.open_stream(), cuda.allocate(ROOM_BYTES), cuda.allocate_pinned(ROOM_BYTES)
    loaded, context = _context(cuda, engine)
    for tensor in loaded.io:
        address = block.address if tensor.is_input else NOBODYS_ADDRESS
        context.set_tensor_address(tensor.name, address)
    scratch = cuda.allocate(max(int(loaded.engine.device_memory_size_v2), 1))
    context.set_device_memory(scratch.address, scratch.size_bytes)
    accepted = bool(context.execute_async_v3(stream.handle))
    return {"accepted": accepted, "codes": _codes(stream.handle, block.address, pinned.address)}


def destroy_the_context() -> dict[str, Any]:
    """As another library of the process may do with the primary context."""
    try:
        driver = importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        return {"skipped": f"no driver API here: {error}"}
    cuda = open_cuda(0)
    stream, block, pinned = cuda.open_stream(), cuda.allocate(ROOM_BYTES), cuda.allocate_pinned(ROOM_BYTES)
    (code,) = driver.cuDevicePrimaryCtxReset(cuda.index)
    return {"reset": int(code), "codes": _codes(stream.handle, block.address, pinned.address)}


def run_in_less_memory_than_is_told_to_be_needed(engine: str) -> dict[str, Any]:
    """The memory is as large as it has to be; only its size is told as too small."""
    cuda = open_cuda(0)
    loaded, context = _context(cuda, engine)
    needed = int(loaded.engine.device_memory_size_v2)
    scratch = cuda.allocate(max(needed, ROOM_BYTES))
    stream, blocks = cuda.open_stream(), [cuda.allocate(ROOM_BYTES * 64) for _ in loaded.io]
    for tensor, block in zip(loaded.io, blocks, strict=True):
        context.set_tensor_address(tensor.name, block.address)
    with loaded.reports.listening():
        context.set_device_memory(scratch.address, 1)
        said_at_once = loaded.reports.recorder.recorded.count()
        accepted = bool(context.execute_async_v3(stream.handle))
        said = [error.text for error in loaded.reports.recorder.recorded.all()]
    return {"needed": needed, "said_at_once": said_at_once, "accepted": accepted, "said": said}


def _context(cuda: Cuda, engine: str) -> tuple[LoadedEngine, Any]:
    """A context with memory of our own at the profile's greatest shapes."""
    trt = import_tensorrt()
    entry = read_entry(Path(engine))
    loaded = EngineLoader(trt, process_log(trt), cuda).load(engine, entry.model, Path(engine).read_bytes())
    context: Any = loaded.engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    greatest = {name: high for name, _, _, high in entry.build_config.optimization_profiles}
    for tensor in loaded.io:
        if tensor.is_input:
            context.set_input_shape(tensor.name, greatest.get(tensor.name, tensor.spec.shape))
        assert shape_of(context.get_tensor_shape(tensor.name)) is not None
    return loaded, context


def _codes(stream: int, block: int, pinned: int) -> dict[str, int]:
    library = _library()
    asked: dict[str, tuple[int, ...]] = {
        "cudaStreamSynchronize": (stream,),
        "cudaMalloc": (16,),
        "cudaHostAlloc": (16, 0),
        "cudaMemGetInfo": (),
        "cudaStreamCreateWithFlags": (library.cudaStreamNonBlocking,),
        "cudaEventCreateWithFlags": (library.cudaEventDisableTiming,),
        "cudaMemsetAsync": (block, 0, 16, stream),
        "cudaFree": (block,),
        "cudaFreeHost": (pinned,),
        "cudaStreamDestroy": (stream,),
        "cudaGetLastError": (),
    }
    return {name: int(getattr(library, name)(*arguments)[0]) for name, arguments in asked.items()}


def _library() -> ModuleType:
    return importlib.import_module("cuda.bindings.runtime")


def _leave(found: dict[str, Any]) -> None:
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


PROGRAMS: dict[str, Callable[..., dict[str, Any]]] = {
    program.__name__: program
    for program in (
        runtime_without_cuda,
        raw_runtime_without_cuda,
        raw_builder_without_cuda,
        copy_past_the_end,
        end_a_capture_on_another_thread,
        poison,
        destroy_the_context,
        run_in_less_memory_than_is_told_to_be_needed,
    )
}

if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        _leave(PROGRAMS[sys.argv[1]](*sys.argv[2:]))
