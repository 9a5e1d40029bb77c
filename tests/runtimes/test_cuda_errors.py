"""CUDA's errors by code, name and text, as each library writes them: which of them a process survives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import C7Error, DeviceContextError, DeviceFaultError, OutOfMemoryError, TransientInferenceError
from messages.errors import DETAIL_MAX_CHARS
from runtimes.cuda_errors import CUDA_ERRORS, CudaError, error_of_cuda, find_cuda_error

STICKY = [226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911]
"""Of CUDA 13.5's `driver_types.h` those that say that the process must be terminated and relaunched."""

TYPES: dict[str, type[C7Error]] = {
    "sticky": DeviceFaultError,
    "context_lost": DeviceContextError,
    "out_of_memory": OutOfMemoryError,
    "over": TransientInferenceError,
}

WRITTEN = {
    "torch": lambda error: f"CUDA error: {error.text}\nCUDA kernel errors might be asynchronously reported",
    "torch, the driver's": lambda error: f"CUDA driver error: {error.text}",
    "torch, by name": lambda error: f"CUDA error: reworded\nSearch for `{error.name}' in https://docs.nvidia.com",
    "ONNX Runtime": lambda error: f"CUDA failure {error.code}: {error.text} ; GPU=0 ; hostname=c7 ; file=cuda_call.cc",
    "ONNX Runtime, reworded": lambda error: f"[ONNXRuntimeError] : 1 : FAIL : CUDA failure {error.code}: reworded",
    "TensorRT": lambda error: f"[checkMacros.cpp::catchCudaError::212] Error Code 1: Cuda Runtime ({error.text})",
    "TensorRT, the driver's": lambda error: f"Error Code 1: Cuda Driver ({error.text})",
    "TensorRT, Myelin's": lambda error: f"Error Code 1: Myelin (CUDA error {error.code} launching __myl_k kernel)",
}

every_error = pytest.mark.parametrize("error", CUDA_ERRORS, ids=lambda error: error.name)


def test_the_sticky_errors_are_those_of_cudas_own_header() -> None:
    assert [error.code for error in CUDA_ERRORS if error.outlook == "sticky"] == STICKY


def test_no_code_name_or_text_is_listed_twice() -> None:
    for field in ("code", "name", "text"):
        assert len({getattr(error, field) for error in CUDA_ERRORS}) == len(CUDA_ERRORS)


@every_error
@pytest.mark.parametrize("library", WRITTEN)
def test_an_error_is_found_as_each_library_writes_it(error: CudaError, library: str) -> None:
    text = WRITTEN[library](error)
    assert find_cuda_error(text) == error
    assert type(error_of_cuda("vpr", text)) is TYPES[error.outlook]


@every_error
def test_an_error_is_found_by_its_code_whatever_its_text_says(error: CudaError) -> None:
    assert find_cuda_error("CUDA error: of a library to come", error.code) == error


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CUDA error: invalid argument",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA failure 1: invalid argument",
        "CUDA failure 7000: of another numbering",
        "misaligned address",
        "the tensor says 700",
        "Search for `cudaErrorIllegalAddressOfSomethingElse' in https://docs.nvidia.com",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "expected a tensor named 'hardware stack error', found CUDA",
    ],
)
def test_what_the_table_does_not_list_is_nothing_to_it(text: str) -> None:
    assert find_cuda_error(text) is None
    assert error_of_cuda("vpr", text) is None


@pytest.mark.parametrize("code", [0, 1, 214, 400, 900, 906, 908, 909, 999, -1, 10**9])
def test_a_code_that_is_not_listed_is_nothing_to_the_table(code: int) -> None:
    assert find_cuda_error("CUDA error: something", code) is None


def test_of_several_errors_the_gravest_counts() -> None:
    text = "CUDA failure 2: out of memory ; CUDA failure 701: too many ; Cuda Runtime (misaligned address)"
    assert find_cuda_error(text) == find_cuda_error("", 716)
    assert find_cuda_error("CUDA error: out of memory", 719) == find_cuda_error("", 719)


def test_an_error_behind_a_long_text_is_found_and_the_message_stays_short() -> None:
    error = error_of_cuda("vpr", "x" * 100_000 + " CUDA failure 719: unspecified launch failure")
    assert isinstance(error, DeviceFaultError)
    assert len(str(error)) < DETAIL_MAX_CHARS


def test_a_message_names_the_model_the_librarys_words_the_error_and_what_to_do() -> None:
    assert str(error_of_cuda("vpr", "CUDA error: misaligned address")) == (
        "vpr: CUDA error: misaligned address; cudaErrorMisalignedAddress (716): every further CUDA call of this process"
        " fails; start the process again"
    )


@given(text=st.text(), code=st.none() | st.integers())
def test_any_text_and_code_have_an_answer(text: str, code: int | None) -> None:
    error = error_of_cuda("vpr", text, code)
    assert error is None or str(error).isprintable()
