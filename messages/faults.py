"""What went wrong with an engine, as a class: what it costs and what heals it follows from the class alone."""

from __future__ import annotations

from typing import Literal, get_args

from messages.errors import (
    C7Error,
    CorruptEngineError,
    DeviceContextError,
    DeviceFaultError,
    InvalidInputError,
    OutOfMemoryError,
    TransientInferenceError,
)

FaultClass = Literal[
    "bad_input",
    "transient_fault",
    "out_of_memory",
    "engine_fault",
    "context_fault",
    "device_fault",
    "hang",
    "corrupt_engine",
    "programming_error",
]
"""`engine_fault`: one engine cannot be trusted with the next frame. `context_fault`: no engine of its device can.
`device_fault`: no engine of this process can, ever again. `hang`: a call that does not return."""
FAULT_CLASSES: tuple[FaultClass, ...] = get_args(FaultClass)

_CLASSES: tuple[tuple[type[BaseException], FaultClass], ...] = (
    (InvalidInputError, "bad_input"),
    (TransientInferenceError, "transient_fault"),
    (DeviceContextError, "context_fault"),
    (DeviceFaultError, "device_fault"),
    (OutOfMemoryError, "out_of_memory"),
    (MemoryError, "out_of_memory"),
    (CorruptEngineError, "corrupt_engine"),
    (C7Error, "engine_fault"),
)
"""First match wins. Whatever no runtime raises on purpose, a SystemExit too, is a programming error."""


def classify_fault(error: BaseException) -> FaultClass:
    """Which class an error is that came out of loading, testing or running an engine."""
    for kind, fault in _CLASSES:
        if isinstance(error, kind):
            return fault
    return "programming_error"
