"""What a CUDA error means for the engines of this process, whichever library reports it.

Codes, names and texts are those of `driver_types.h` and `cudaGetErrorString` of CUDA 12.6.77 and 13.5.37; a row's
`outlook` is what that header says of it:

sticky         "leaves the process in an inconsistent state and any further CUDA work will return the same error. To
               continue using CUDA, the process must be terminated and relaunched."
context_lost   "the context current to the calling thread has been destroyed"
out_of_memory  "unable to allocate enough memory or other resources"
over           "a launch did not occur"; "Applications may retry"

An error that is not listed says none of this: neither that it passes nor that it stays. cudaErrorECCUncorrectable is
one of them.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from messages import (
    C7Error,
    DeviceContextError,
    DeviceFaultError,
    OutOfMemoryError,
    TransientInferenceError,
)
from messages.errors import printable

Outlook = Literal["sticky", "context_lost", "out_of_memory", "over"]

TEXT_MAX_CHARS = 500


class CudaError(NamedTuple):
    """One cudaError_t. The driver's CUresult has the same numbers and texts for these."""

    code: int
    name: str
    text: str
    outlook: Outlook


CUDA_ERRORS = (
    CudaError(2, "cudaErrorMemoryAllocation", "out of memory", "out_of_memory"),
    CudaError(226, "cudaErrorContained", "Invalid access of peer GPU memory over nvlink or a hardware error", "sticky"),
    CudaError(700, "cudaErrorIllegalAddress", "an illegal memory access was encountered", "sticky"),
    CudaError(701, "cudaErrorLaunchOutOfResources", "too many resources requested for launch", "over"),
    CudaError(702, "cudaErrorLaunchTimeout", "the launch timed out and was terminated", "sticky"),
    CudaError(709, "cudaErrorContextIsDestroyed", "context is destroyed", "context_lost"),
    CudaError(710, "cudaErrorAssert", "device-side assert triggered", "sticky"),
    CudaError(714, "cudaErrorHardwareStackError", "hardware stack error", "sticky"),
    CudaError(715, "cudaErrorIllegalInstruction", "an illegal instruction was encountered", "sticky"),
    CudaError(716, "cudaErrorMisalignedAddress", "misaligned address", "sticky"),
    CudaError(717, "cudaErrorInvalidAddressSpace", "operation not supported on global/shared address space", "sticky"),
    CudaError(718, "cudaErrorInvalidPc", "invalid program counter", "sticky"),
    CudaError(719, "cudaErrorLaunchFailure", "unspecified launch failure", "sticky"),
    CudaError(721, "cudaErrorTensorMemoryLeak", "tensor memory not completely freed", "sticky"),
    CudaError(810, "cudaErrorMpsClientTerminated", "the MPS client has been terminated by the server", "sticky"),
    CudaError(
        911, "cudaErrorExternalDevice", "an async error has occured in external entity outside of CUDA", "sticky"
    ),
    CudaError(
        919,
        "cudaErrorFabricNotReady",
        "GPU fabric is not ready within the probe wait budget; application may retry (see CUDA_FABRIC_INIT_TIMEOUT_MS)",
        "over",
    ),
)

_BY_CODE = {error.code: error for error in CUDA_ERRORS}
_BY_NAME = {error.name: error for error in CUDA_ERRORS}
_BY_TEXT = {error.text.lower(): error for error in CUDA_ERRORS}
_URGENCY: tuple[Outlook, ...] = ("sticky", "context_lost", "out_of_memory", "over")

# ONNX Runtime: "CUDA failure 700: ..."; TensorRT's Myelin: "CUDA error 700 launching ...".
_NUMBERED = re.compile(r"\bCUDA (?:failure|error) (\d{1,3})\b", re.IGNORECASE)
# torch 2.7 and newer: "Search for `cudaErrorIllegalAddress' in https://..."
_NAMED = re.compile(r"\b(cudaError[A-Za-z]+)\b")
# torch: "CUDA error: TEXT", "CUDA driver error: TEXT"; TensorRT: "Cuda Runtime (TEXT)", "Cuda Driver (TEXT)".
_WORDED = re.compile(
    r"\bCUDA (?:error: |driver error: |runtime \(|driver \()(" + "|".join(map(re.escape, _BY_TEXT)) + r")",
    re.IGNORECASE,
)


def find_cuda_error(text: str, code: int | None = None) -> CudaError | None:
    """Pure. The gravest listed error that `code` is or `text` reports; None where neither is one of them."""
    found = [_BY_CODE.get(code)] if code is not None else []
    found += [_BY_CODE.get(int(number)) for number in _NUMBERED.findall(text)]
    found += [_BY_NAME.get(name) for name in _NAMED.findall(text)]
    found += [_BY_TEXT.get(worded.lower()) for worded in _WORDED.findall(text)]
    listed = [error for error in found if error is not None]
    return min(listed, key=lambda error: _URGENCY.index(error.outlook), default=None)


def error_of_cuda(subject: str, text: str, code: int | None = None) -> C7Error | None:
    """The typed error that a library's error with this text and CUDA code is; None where CUDA's table says nothing.

    `subject` is the model or file that the text is about.
    """
    found = find_cuda_error(text, code)
    if found is None:
        return None
    line = f"{subject}: {printable(' '.join(text.split()), TEXT_MAX_CHARS)}; {found.name} ({found.code}):"
    if found.outlook == "sticky":
        return DeviceFaultError(f"{line} every further CUDA call of this process fails; start the process again")
    if found.outlook == "context_lost":
        return DeviceContextError(f"{line} everything loaded on the device is lost; load all its engines again")
    if found.outlook == "out_of_memory":
        return OutOfMemoryError(f"{line} the device has too little free memory; fly fewer or smaller engines")
    return TransientInferenceError(f"{line} it is over with this run")
