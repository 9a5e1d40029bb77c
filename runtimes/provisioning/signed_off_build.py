"""From a source to a signed-off engine: compiled, loaded as at takeoff, measured, judged, then put in place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from messages.errors import C7Error, EngineBuildError, InferenceError, SelfTestError
from runtimes.config import C7InferenceConfig
from runtimes.host import is_jetson
from runtimes.inference_runtime import EngineCacheEntry, EngineHandle, HostTuple, InferenceRuntime
from runtimes.measurements import AccuracyRecord, MemoryUse
from runtimes.power_mode import detect_power_mode
from runtimes.provisioning.build_inputs import BuildInputs, Inputs
from runtimes.provisioning.build_request import BuildEngine, EngineBuilt
from runtimes.sign_off.accuracy import IncomparableOutputsError, Outputs, compare, judge_accuracy
from runtimes.sign_off.memory_use import MemoryGauge, memory_use
from runtimes.sign_off.reference import Reference, ReferenceUnavailableError, open_reference
from runtimes.sign_off.self_test import AnswersTooLargeError, check_known_answers, record_known_answers
from runtimes.source_model import read_source
from runtimes.store.disk import DISK
from runtimes.store.engine_artifact import CALIBRATION_MAX_BYTES, artifact_files, calibration_path
from runtimes.store.engine_filename import EngineFilenameSchema
from runtimes.store.engine_store import store_errors
from runtimes.store.engine_writer import sign_off
from runtimes.store.regular_file import read_regular_file
from runtimes.takeoff_load import deserialize_cached_engine

RUNS_MEASURED = 5
"""ONNX Runtime plans its memory at the first run of a shape and takes as much again at the second; a small engine was
seen to grow at its fourth."""


def compile_folder(request: BuildEngine) -> Path:
    """Where the runtime must compile to: out of the generation, into which only what is signed off is moved.

    It is also where a runtime compiles without an `engine_dir`: beside the source that it is given.
    """
    return request.scratch / "engines"


def build_signed_off(request: BuildEngine, runtime: InferenceRuntime, host: HostTuple) -> EngineBuilt:
    """Carry the request out on this runtime, which compiles into `compile_folder` and has nothing loaded.

    Raises EngineBuildError, with the figures, for an engine that is not accurate enough, does not run or does not
    repeat itself; CalibrationCacheError, ConfigError, EngineStoreError, OutOfMemoryError. The directory is as it was
    then.
    """
    entry = _compiled(request, runtime, host)
    inputs = BuildInputs(entry, request.samples)
    with _loaded(runtime, entry) as handle, _engine_errors(entry):
        answers = _known_answers(runtime, handle, inputs)
        memory = _measured_again(request, runtime, entry, inputs, answers)
        accuracy, why_none = _accuracy(request, runtime, handle, inputs)
    signed_off = sign_off(
        entry,
        self_test=answers,
        power=detect_power_mode(),
        memory=memory,
        accuracy=accuracy,
        room_bytes=_room_beside(entry, request.room_bytes),
    )
    with store_errors(request.directory, "written"):
        for path in artifact_files(signed_off):  # the sidecar, which makes the others valid, comes last
            DISK.replace(path, request.directory / path.name)
        DISK.fsync_folder(request.directory)
    return EngineBuilt(signed_off.path.name, why_none)


def _room_beside(entry: EngineCacheEntry, room_bytes: int | None) -> int | None:
    """What is left of the room for this build, beside the files that the runtime wrote. Raises EngineStoreError."""
    if room_bytes is None:
        return None
    with store_errors(entry.path.parent, "counted"):
        return max(0, room_bytes - sum(path.lstat().st_size for path in artifact_files(entry)))


def _compiled(request: BuildEngine, runtime: InferenceRuntime, host: HostTuple) -> EngineCacheEntry:
    folder = compile_folder(request)
    if request.calibration_cache is not None:
        name = EngineFilenameSchema.for_host(request.model, host, request.build_config.precision).format()
        with store_errors(request.scratch, "written"):
            data = read_regular_file(request.calibration_cache, max_bytes=CALIBRATION_MAX_BYTES)
            DISK.make_folders(folder)
            DISK.write_new_file(calibration_path(folder / name), data)
    # A runtime names the engine after its source; the plan's name for the model may be another.
    named = request.scratch / f"{request.model}{request.source.suffix}"
    named.symlink_to(request.source)
    try:
        entry = runtime.compile_engine(named, request.build_config)
    except C7Error as error:
        raise type(error)(str(error).replace(str(named), str(request.source))) from error
    _refuse_changed(request, entry.source_sha256)
    return entry


def _refuse_changed(request: BuildEngine, found: str) -> None:
    if found != request.source_sha256:
        raise EngineBuildError(
            f"{request.source}: the source changed while it was provisioned: expected sha256"
            f" {request.source_sha256}, found {found}; provision again once it is complete"
        )


def _known_answers(runtime: InferenceRuntime, handle: EngineHandle, inputs: BuildInputs) -> bytes:
    """On the first sample, or made-up inputs; of the profile's smallest shapes where those answers are too large."""
    try:
        return record_known_answers(runtime, handle, inputs.first())
    except AnswersTooLargeError as first:
        try:
            return record_known_answers(runtime, handle, inputs.smallest())
        except AnswersTooLargeError as error:
            raise EngineBuildError(
                f"{handle.entry.model}: its known answers cannot be kept: {first}, and with the smallest shapes of the"
                f" profile {error}; an engine without them is never taken again, so give it a smaller profile"
            ) from error


def _measured_again(
    request: BuildEngine, runtime: InferenceRuntime, entry: EngineCacheEntry, inputs: BuildInputs, answers: bytes
) -> MemoryUse:
    """Load the engine a second time beside the first: what memory that takes, and whether it repeats its answers."""
    heaviest = inputs.heaviest()
    gauge = _gauge(request.config)
    before = gauge.at_rest()
    with _loaded(runtime, entry) as handle:
        loaded = gauge.at_rest()
        _, test_peak = gauge.peak_of(lambda: check_known_answers(runtime, handle, answers, request.self_test_tolerance))
        _, runs_peak = gauge.peak_of(lambda: _run_again_and_again(runtime, handle, heaviest))
        # A load has the answers' file in memory beside the arrays in it; here it was there before.
        return memory_use(before, loaded, gauge.at_rest(), max(test_peak + len(answers), runs_peak))


def _run_again_and_again(runtime: InferenceRuntime, handle: EngineHandle, inputs: Inputs) -> None:
    for _ in range(RUNS_MEASURED):
        runtime.infer(handle, inputs)


def _accuracy(
    request: BuildEngine, runtime: InferenceRuntime, handle: EngineHandle, inputs: BuildInputs
) -> tuple[AccuracyRecord | None, str]:
    """The record, or None and why there is none; with a tolerance there must be one."""
    model = request.model
    source = read_source(request.source, suffix=request.source.suffix)
    _refuse_changed(request, source.sha256)
    try:
        reference = open_reference(source, threads=request.config.threads)
        outputs = compare(_both(runtime, handle, reference, inputs))
    except ReferenceUnavailableError as error:
        if request.accuracy_tolerance is None:
            return None, str(error)
        raise EngineBuildError(
            f"{model}: expected a relative error of at most {request.accuracy_tolerance:.3g}, but there is no reference"
            f" to hold the engine against: {error}; install what is missing, or leave accuracy_tolerance out"
        ) from error
    except IncomparableOutputsError as error:
        raise EngineBuildError(f"{model}: the engine does not do what its source does: {error}") from error
    record = AccuracyRecord(
        reference=reference.description[:200],
        samples_sha256=inputs.samples_sha256,
        sample_count=inputs.count,
        outputs=outputs,
    )
    refusal = judge_accuracy(record, request.accuracy_tolerance)
    if refusal:
        raise EngineBuildError(f"{model}: not accurate enough: {refusal}")
    return record, ""


def _both(
    runtime: InferenceRuntime, handle: EngineHandle, reference: Reference, inputs: BuildInputs
) -> Iterator[tuple[Outputs, Outputs]]:
    """Both run on the same values: what a sample loses in the engine's dtype is no error of the engine."""
    for each in inputs:
        outputs = runtime.infer(handle, each)
        yield {name: np.asarray(tensor) for name, tensor in outputs.items()}, reference.run(each)


def _gauge(config: C7InferenceConfig) -> MemoryGauge:
    return MemoryGauge(device_index=config.device_index if config.uses_gpu else None, shares_memory=is_jetson())


@contextlib.contextmanager
def _loaded(runtime: InferenceRuntime, entry: EngineCacheEntry) -> Iterator[EngineHandle]:
    handle = deserialize_cached_engine(runtime, entry)
    try:
        yield handle
    finally:
        runtime.release_engine(handle)


@contextlib.contextmanager
def _engine_errors(entry: EngineCacheEntry) -> Iterator[None]:
    try:
        yield
    except SelfTestError as error:
        raise EngineBuildError(f"{entry.model}: loaded a second time, it does not repeat itself: {error}") from error
    except InferenceError as error:
        raise EngineBuildError(
            f"{entry.model}: it was compiled, but does not run on its samples or the shapes of its profile: {error}"
        ) from error
