"""Loading and running: Runtime, engines, contexts, and the callbacks that these take."""

from __future__ import annotations

from .callbacks import IErrorRecorder, ILogger, IOutputAllocator, Logger
from .context import IExecutionContext
from .engine import EngineInspector, ICudaEngine
from .foundational_types import Dims, IHostMemory, nptype, volume
from .runtime import Runtime, init_libnvinfer_plugins

__all__ = [
    "Dims",
    "EngineInspector",
    "ICudaEngine",
    "IErrorRecorder",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "IOutputAllocator",
    "Logger",
    "Runtime",
    "init_libnvinfer_plugins",
    "nptype",
    "volume",
]

UNPROVEN = (
    "a Runtime of the full library without CUDA is a wild object too; the lean library of 10.16.1 made one",
    "an engine and a context have memory of cudaMalloc of their own: as much as the plan's weights and activations",
    "the words of a refused host code, of missing device memory, of a shape tensor's values, of a fixed dimension, of a"
    " name that is no tensor's, of shapes that fit nothing and of bad alignment",
    "set_tensor_address refuses an address that is not aligned to 256 bytes; the header says it of two like it",
    "memory that is too small for USER_MANAGED is refused by execute_async_v3, and set_device_memory says nothing",
    "inputs on the host are read when execute_async_v3 is called, outputs on the host are written when the run is done",
    "an output that depends on data makes execute_async_v3 wait for the stream before it asks for memory",
    "the recorder is asked for its number of errors after each report",
    "what is said of memory goes to the recorder, and its warning to the log",
    "a run after its context was destroyed, or with a context or memory that a queued run of another stream uses, is"
    " a misuse even where events order the two",
)
"""What is belief here: no header, no source of the bindings and no public report says it, and no device was asked."""
