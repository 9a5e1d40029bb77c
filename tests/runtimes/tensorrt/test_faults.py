"""Which typed error TensorRT's words and codes are, in each of the three things that can fail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import (
    C7Error,
    DeviceContextError,
    DeviceFaultError,
    EngineBuildError,
    EngineDeserializeError,
    InferenceError,
    OutOfMemoryError,
    TransientInferenceError,
)
from runtimes.cuda_errors import CUDA_ERRORS
from runtimes.tensorrt.error_recorder import RecordedError
from runtimes.tensorrt.faults import WORDS_MAX_CHARS, error_of_build, error_of_load, error_of_run, words_of
from runtimes.tensorrt.log import TensorrtLine


def said(*texts: str, severity: str = "ERROR") -> list[TensorrtLine]:
    return [TensorrtLine(severity, text, 0) for text in texts]  # type: ignore[arg-type]


RESOURCES: list[tuple[str, type[C7Error]]] = [
    ("[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)", OutOfMemoryError),
    ("Error Code 2: OutOfMemory (Requested size was 4194304 bytes.)", OutOfMemoryError),
    ("Error Code 2: OutOfMemory (no further information)", OutOfMemoryError),
    ("Requested amount of GPU memory (1073741824 bytes) could not be allocated.", OutOfMemoryError),
    ("Error Code 1: Myelin (std::bad_alloc)", OutOfMemoryError),
    ("Error Code 1: Cuda Runtime (an illegal memory access was encountered)", DeviceFaultError),
    ("Error Code 1: Cuda Runtime (unspecified launch failure)", DeviceFaultError),
    ("Error Code 1: Cuda Driver (device-side assert triggered)", DeviceFaultError),
    ("Error Code 1: Myelin (CUDA error 700 launching __myl_Add kernel.)", DeviceFaultError),
    ("Error Code 1: Cuda Runtime (context is destroyed)", DeviceContextError),
]


@pytest.mark.parametrize(("text", "kind"), RESOURCES)
def test_what_is_said_of_memory_and_device_is_told_apart_in_a_build_a_load_and_a_run(
    text: str, kind: type[C7Error]
) -> None:
    found = [
        error_of_build("m.onnx", said(text)),
        error_of_load("m.engine", said(text)),
        error_of_run("m", "execute_async_v3", said(text)),
    ]
    assert [type(error) for error in found] == [kind] * 3
    for error in found:
        assert text[:60] in str(error)


@pytest.mark.parametrize("text", [text for text, kind in RESOURCES if kind is OutOfMemoryError])
def test_memory_that_a_build_lacks_is_no_reason_to_fly_fewer_engines(text: str) -> None:
    assert "for this build; end what else uses it, or lower workspace_mb" in str(error_of_build("m.onnx", said(text)))
    assert "fly fewer or smaller engines" in str(error_of_load("m.engine", said(text)))


OTHERS = [
    "Error Code 3: API Usage Error (Parameter check failed, condition: allInputDimensionsSpecified(routine).)",
    "Error Code 4: Internal Error (Could not find any implementation for node {ForeignNode[a...b]}.)",
    "Error Code 9: Internal Error (gather: index is out of range)",
    "4: [network.cpp::validate::3100] Error Code 4: Internal Error",
]


@pytest.mark.parametrize("text", OTHERS)
def test_anything_else_is_the_error_of_what_was_done_with_tensorrts_own_words(text: str) -> None:
    assert type(error_of_build("m.onnx", said(text))) is EngineBuildError
    assert type(error_of_load("m.engine", said(text))) is EngineDeserializeError
    assert type(error_of_run("m", "execute_async_v3", said(text))) is InferenceError
    assert text in str(error_of_run("m", "execute_async_v3", said(text)))


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (
            "Error Code 6: API Usage Error (The engine plan file is not compatible with this version of TensorRT,"
            " expecting library version 10.3.0.26 got 10.4.0.11, please rebuild.)",
            "another TensorRT's; compile it on this machine",
        ),
        (
            "Error Code 6: API Usage Error (The engine plan file is generated on an incompatible device, expecting"
            " compute 8.7 got compute 8.6, please rebuild.)",
            "another device's; compile it on this machine",
        ),
        (
            "IPluginRegistry::getPluginCreator: Error Code 4: API Usage Error (Cannot find plugin: EfficientIdxNMS_TRT,"
            " version: 1, namespace:.)",
            "load its library before",
        ),
        (
            "Error Code 1: Serialization (Serialization assertion creator failed.Cannot deserialize plugin since"
            " corresponding IPluginCreator not found in Plugin Registry)",
            "load its library before",
        ),
        (
            "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion stdVersionRead =="
            " kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 237, Serialized Engine"
            " Version: 239)",
            "another TensorRT's; compile it on this machine",
        ),
        ("Error Code 1: Serialization (Serialization assertion failed.)", "c7 provision FLIGHT.toml"),
    ],
)
def test_a_refused_engine_says_what_to_do(text: str, remedy: str) -> None:
    error = error_of_load("m.engine", said(text))
    assert type(error) is EngineDeserializeError
    assert remedy in str(error)


def test_a_cause_that_stands_behind_many_words_is_found() -> None:
    lines = said("Error Code 9: Internal Error (" + "x" * WORDS_MAX_CHARS + ")", "Cannot find plugin: A, version: 1")
    assert "load its library before" in str(error_of_load("m.engine", lines))


def test_memory_may_be_told_by_the_recorders_code_alone() -> None:
    recorded = [RecordedError("FAILED_ALLOCATION", "resize of the tensor failed")]
    assert type(error_of_run("m", "execute_async_v3", [], recorded)) is OutOfMemoryError
    assert type(error_of_run("m", "execute_async_v3", [], [RecordedError("INVALID_STATE", "x")])) is InferenceError


def test_the_recorder_tells_what_the_log_does_not() -> None:
    recorded = [RecordedError("INTERNAL_ERROR", "Error Code 1: Cuda Runtime (misaligned address)")]
    error = error_of_run("m", "execute_async_v3", said("Executing", severity="INFO"), recorded)
    assert type(error) is DeviceFaultError
    assert "misaligned address" in str(error)


def test_the_line_that_tells_most_comes_first_and_each_is_told_once() -> None:
    lines = said("it failed", "Error Code 2: OutOfMemory (Requested size was 8 bytes.)", "it failed")
    lines += said("Error Code 1: Cuda Runtime (an illegal memory access was encountered)")
    assert words_of(lines) == (
        "Error Code 1: Cuda Runtime (an illegal memory access was encountered);"
        " Error Code 2: OutOfMemory (Requested size was 8 bytes.); it failed"
    )


def test_a_tactic_that_a_build_skipped_is_no_memory_that_ran_out() -> None:
    lines = said(
        "Error Code 10: Skipping tactic 3 due to insufficient memory on requested size of 9 (out of memory)",
        "Error Code 10: Internal Error (Could not find any implementation for node Conv_7.)",
    )
    error = error_of_build("m.onnx", lines)
    assert type(error) is EngineBuildError
    assert str(error).startswith("m.onnx: TensorRT made no engine: Error Code 10: Internal Error (Could not find any")


def test_a_warning_is_a_reason_only_where_there_is_no_error() -> None:
    warned = said("Using an engine plan file across different models of devices", severity="WARNING")
    assert words_of(warned) == "Using an engine plan file across different models of devices"
    assert words_of(warned + said("it failed")) == "it failed"
    assert words_of(said("a detail", severity="INFO")) == "TensorRT says no reason"


def test_an_error_that_cuda_says_passes_fails_a_frame_and_refuses_a_load() -> None:
    text = "Error Code 1: Cuda Runtime (too many resources requested for launch)"
    assert type(error_of_run("m", "execute_async_v3", said(text))) is TransientInferenceError
    assert type(error_of_load("m.engine", said(text))) is EngineDeserializeError


@given(st.lists(st.tuples(st.sampled_from(["ERROR", "WARNING", "INFO"]), st.text(max_size=900)), max_size=6))
def test_whatever_is_said_the_error_is_one_bounded_line(said_lines: list[tuple[str, str]]) -> None:
    lines = [TensorrtLine(severity, text, 0) for severity, text in said_lines]  # type: ignore[arg-type]
    for error in (error_of_build("m", lines), error_of_load("m", lines), error_of_run("m", "x", lines)):
        assert "\n" not in str(error)
        assert len(str(error)) < WORDS_MAX_CHARS + 400


@pytest.mark.parametrize("listed", CUDA_ERRORS, ids=lambda error: error.name)
def test_every_listed_cuda_error_inside_tensorrts_words_is_found(listed: object) -> None:
    text = f"IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime ({listed.text})"  # type: ignore[attr-defined]
    kinds = {
        "sticky": DeviceFaultError,
        "context_lost": DeviceContextError,
        "out_of_memory": OutOfMemoryError,
        "over": TransientInferenceError,
    }
    assert type(error_of_run("m", "execute_async_v3", said(text))) is kinds[listed.outlook]  # type: ignore[attr-defined]
