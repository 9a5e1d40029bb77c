"""What every runtime promises, asked of each of them with a small but real model, and of each again on actors."""

from __future__ import annotations

import gc
import math
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from messages import (
    EngineBuildError,
    EngineDeserializeError,
    InferenceError,
    InvalidInputError,
    TelemetryUnavailableError,
    TensorSpec,
    ThermalState,
)
from runtimes.inference_runtime import (
    EngineCacheEntry,
    EngineHandle,
    InferenceRuntime,
    SuspendsEngines,
)
from runtimes.store.engine_artifact import read_entry
from tests.runtimes.contract_subjects import (
    ON_ACTORS,
    PROFILE,
    STRATEGIES,
    Arrays,
    Subject,
    on_a_device,
    on_actors,
    torch,
)


@pytest.fixture(
    params=[
        "fake",
        "onnx_trt_ep",
        pytest.param("pytorch_fp16", marks=torch),
        "tensorrt",
        on_a_device,
        "supervised fake",
        "supervised onnx_trt_ep",
        pytest.param("supervised pytorch_fp16", marks=torch),
        "supervised tensorrt",
        pytest.param("supervised tensorrt on a device", marks=pytest.mark.tensorrt),
    ]
)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    name: str = request.param
    strategy = STRATEGIES[name.removeprefix(ON_ACTORS)](request, tmp_path)
    return on_actors(strategy, request) if name.startswith(ON_ACTORS) else strategy


of_strategies = pytest.mark.parametrize(
    "subject",
    ["fake", "onnx_trt_ep", pytest.param("pytorch_fp16", marks=torch), "tensorrt", on_a_device],
    indirect=True,
)


@pytest.fixture
def runtime(subject: Subject) -> InferenceRuntime:
    return subject.make(None)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Subject], EngineCacheEntry]:
    """Each runtime's engine, compiled once; the tests are given copies."""
    entries: dict[tuple[str, str], EngineCacheEntry] = {}

    def compile_once(subject: Subject) -> EngineCacheEntry:
        key = subject.label, subject.dtype  # a device's TensorRT and its double have one label
        if key not in entries:
            source = Path(shutil.copy(subject.source, tmp_path_factory.mktemp("compiled")))
            entries[key] = subject.make(None).compile_engine(source, subject.build_config)
        return entries[key]

    return compile_once


@pytest.fixture
def entry(subject: Subject, compiled: Callable[[Subject], EngineCacheEntry], tmp_path: Path) -> EngineCacheEntry:
    original = compiled(subject)
    copied = shutil.copytree(original.path.parent, tmp_path / "store")
    return msgspec.structs.replace(original, path=copied / original.path.name)


@pytest.fixture
def handle(runtime: InferenceRuntime, entry: EngineCacheEntry) -> EngineHandle:
    return runtime.deserialize_engine(entry)


def run(runtime: InferenceRuntime, handle: EngineHandle, inputs: Arrays) -> dict[str, np.ndarray]:
    outputs = runtime.infer(handle, inputs)
    arrays = {name: tensor for name, tensor in outputs.items() if isinstance(tensor, np.ndarray)}
    assert arrays.keys() == outputs.keys(), "NumPy in, NumPy out"
    return arrays


# Compiling.


def test_the_label_says_runtime_and_device(subject: Subject, runtime: InferenceRuntime) -> None:
    assert runtime.current_runtime_label() == subject.label


def test_compiling_writes_an_entry_that_reads_back_the_same(subject: Subject, runtime: InferenceRuntime) -> None:
    entry = runtime.compile_engine(subject.source, subject.build_config)
    assert read_entry(entry.path) == entry
    assert entry.model == "descriptor"
    assert entry.path.parent == subject.source.parent / "engines"
    assert entry.runtime_label == subject.label
    assert entry.build_config == subject.build_config
    assert entry.inputs == {
        "image": TensorSpec((-1, 3, 8, 8), subject.dtype),  # type: ignore[arg-type]
        "bias_by_image": TensorSpec((-1, 4), subject.dtype),  # type: ignore[arg-type]
    }


def test_compiling_a_missing_or_empty_source_is_refused_and_leaves_nothing(
    subject: Subject, runtime: InferenceRuntime, tmp_path: Path
) -> None:
    missing = tmp_path / "elsewhere" / subject.source.name
    with pytest.raises(EngineBuildError, match="cannot be read"):
        runtime.compile_engine(missing, subject.build_config)
    missing.parent.mkdir()
    missing.touch()
    with pytest.raises(EngineBuildError, match="empty"):
        runtime.compile_engine(missing, subject.build_config)
    assert [path.name for path in missing.parent.iterdir()] == [missing.name]


@pytest.mark.parametrize(
    ("profile", "what"),
    [
        ((("imag", (1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8)),), "names input imag, expected image, bias_by_image"),
        ((("image", (1, 3, 9, 8), (1, 3, 9, 8), (1, 3, 9, 8)),), "3, 9, 8"),
        ((("image", (3, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)),), "min <= opt <= max"),
        ((("image", (1, 3), (1, 3), (1, 3)),), "expected within"),
        ((PROFILE[0], PROFILE[0]), "twice"),
    ],
)
def test_a_profile_that_contradicts_the_model_is_refused(
    subject: Subject, runtime: InferenceRuntime, profile: tuple[object, ...], what: str
) -> None:
    config = msgspec.structs.replace(subject.build_config, optimization_profiles=profile)
    with pytest.raises(EngineBuildError, match=what):
        runtime.compile_engine(subject.source, config)
    assert not (subject.source.parent / "engines").exists()


def test_nothing_is_compiled_while_an_engine_is_loaded(
    subject: Subject, runtime: InferenceRuntime, handle: EngineHandle
) -> None:
    with pytest.raises(EngineBuildError, match="while engines are loaded \\(descriptor\\)"):
        runtime.compile_engine(subject.source, subject.build_config)
    runtime.release_engine(handle)
    assert runtime.compile_engine(subject.source, subject.build_config)


# Loading.


def test_a_flipped_bit_in_the_engine_is_refused_by_name(runtime: InferenceRuntime, entry: EngineCacheEntry) -> None:
    data = bytearray(entry.path.read_bytes())
    data[len(data) // 2] ^= 1
    entry.path.write_bytes(data)
    with pytest.raises(EngineDeserializeError, match=f"{entry.path.name}.*expected.*found"):
        runtime.deserialize_engine(entry)


def test_a_missing_engine_is_refused_by_name(runtime: InferenceRuntime, entry: EngineCacheEntry) -> None:
    entry.path.unlink()
    with pytest.raises(EngineDeserializeError, match=entry.path.name):
        runtime.deserialize_engine(entry)


def test_an_engine_of_another_host_is_refused_naming_the_difference(
    runtime: InferenceRuntime, entry: EngineCacheEntry
) -> None:
    other = msgspec.structs.replace(entry, host=msgspec.structs.replace(entry.host, sm=61, jetpack="4.0"))
    with pytest.raises(EngineDeserializeError, match=r"sm: engine 61.*jetpack: engine 4\.0"):
        runtime.deserialize_engine(other)


def test_an_engine_of_another_runtime_is_refused_naming_both(
    subject: Subject, runtime: InferenceRuntime, entry: EngineCacheEntry
) -> None:
    other = msgspec.structs.replace(entry, runtime_label="onnx_trt_ep[cuda:3]")
    with pytest.raises(EngineDeserializeError) as refusal:
        runtime.deserialize_engine(other)
    assert "onnx_trt_ep[cuda:3]" in str(refusal.value)
    assert subject.label in str(refusal.value)


def test_a_refused_load_leaves_the_runtime_free_to_compile(
    subject: Subject, runtime: InferenceRuntime, entry: EngineCacheEntry
) -> None:
    with pytest.raises(EngineDeserializeError):
        runtime.deserialize_engine(msgspec.structs.replace(entry, runtime_label="onnx_trt_ep[cuda:3]"))
    assert runtime.compile_engine(subject.source, subject.build_config) is not None


# Running.


@pytest.mark.parametrize("images", [1, 2, 4])
def test_the_numbers_are_those_of_the_library_called_directly(
    subject: Subject, runtime: InferenceRuntime, handle: EngineHandle, images: int
) -> None:
    inputs = subject.inputs(seed=images, images=images)
    outputs = run(runtime, handle, inputs)
    expected = subject.reference(inputs)
    assert list(outputs) == list(expected)
    for name, array in outputs.items():
        assert array.dtype == subject.dtype
        np.testing.assert_allclose(
            array, expected[name], rtol=2e-3 if subject.dtype == "float16" else 1e-5, atol=subject.rounding
        )
    assert np.abs(outputs["descriptor"]).max() > 0.1


WRONG: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "missing": (lambda x: x.pop("image"), "image is missing: expected .*found bias_by_image"),
    "extra": (lambda x: x.update(mask=x["image"]), "mask is unknown: expected image, bias_by_image"),
    "dtype": (
        lambda x: x.update(image=x["image"].astype(np.float64)),
        r"image: expected .*found float64\[2, 3, 8, 8\]",
    ),
    "rank": (lambda x: x.update(image=x["image"][0]), r"image: expected .*found float(16|32)\[3, 8, 8\]"),
    "shape": (lambda x: x.update(image=x["image"][:, :2]), r"image: expected .*found float(16|32)\[2, 2, 8, 8\]"),
    "beyond the profile": (
        lambda x: x.update({name: np.concatenate([array] * 3) for name, array in x.items()}),
        r"image: expected float(16|32)\[1\.\.4, 3, 8, 8\], found float(16|32)\[6, 3, 8, 8\]",
    ),
    "empty": (lambda x: x.update({name: array[:0] for name, array in x.items()}), r"found float(16|32)\[0, 3, 8, 8\]"),
    "byte order": (lambda x: x.update(image=x["image"].astype(x["image"].dtype.newbyteorder())), "foreign byte order"),
    "no tensor": (lambda x: x.update(image=x["image"].tolist()), "a list, which is no tensor"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_input_is_refused_by_name_and_the_engine_lives_on(
    subject: Subject, runtime: InferenceRuntime, handle: EngineHandle, fault: str
) -> None:
    spoil, what = WRONG[fault]
    inputs = subject.inputs()
    spoil(inputs)
    with pytest.raises(InvalidInputError, match=what):
        runtime.infer(handle, inputs)
    good = subject.inputs(seed=1)
    np.testing.assert_allclose(
        run(runtime, handle, good)["descriptor"],
        subject.reference(good)["descriptor"],
        rtol=2e-3,
        atol=max(1e-3, subject.rounding),
    )


def test_inputs_are_never_written(subject: Subject, runtime: InferenceRuntime, handle: EngineHandle) -> None:
    inputs, untouched = subject.inputs(), subject.inputs()
    run(runtime, handle, inputs)
    for name in inputs:
        np.testing.assert_array_equal(inputs[name], untouched[name])


@pytest.mark.parametrize(
    "arrange",
    [
        lambda a: np.asfortranarray(a),
        lambda a: np.concatenate([a, a], axis=-1)[..., : a.shape[-1]],
        lambda a: np.ascontiguousarray(a[::-1])[::-1],
        lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
        lambda a: np.frombuffer(b"\0" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    ],
    ids=["fortran", "strided", "reversed", "read-only", "unaligned"],
)
def test_however_an_array_lies_in_memory_the_result_is_the_same(
    subject: Subject,
    runtime: InferenceRuntime,
    handle: EngineHandle,
    arrange: Callable[[np.ndarray], np.ndarray],
) -> None:
    inputs = subject.inputs()
    expected = run(runtime, handle, inputs)
    found = run(runtime, handle, {name: arrange(array) for name, array in inputs.items()})
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-6)


def test_outputs_are_the_consumers_own(subject: Subject, runtime: InferenceRuntime, handle: EngineHandle) -> None:
    inputs = subject.inputs()
    outputs = run(runtime, handle, inputs)
    for array in outputs.values():
        assert array.flags.writeable
        assert not any(np.shares_memory(array, given) for given in inputs.values())
    assert not np.shares_memory(outputs["descriptor"], outputs["echo"])
    kept = {name: array.copy() for name, array in outputs.items()}
    for seed in range(1, 4):
        run(runtime, handle, subject.inputs(seed=seed))
    for name, array in outputs.items():
        np.testing.assert_array_equal(array, kept[name])
        array.fill(7)
    again = run(runtime, handle, inputs)
    for name, array in again.items():
        np.testing.assert_array_equal(array, kept[name])


def test_outputs_outlive_the_engine(subject: Subject, runtime: InferenceRuntime, handle: EngineHandle) -> None:
    inputs = subject.inputs()
    outputs = run(runtime, handle, inputs)
    kept = {name: array.copy() for name, array in outputs.items()}
    runtime.release_engine(handle)
    del handle
    gc.collect()
    for name, array in outputs.items():
        np.testing.assert_array_equal(array, kept[name])


def test_inputs_are_not_kept_after_the_run(subject: Subject, runtime: InferenceRuntime, handle: EngineHandle) -> None:
    import weakref

    class Watched(np.ndarray):
        """A plain ndarray takes no weak reference."""

    inputs = {name: array.view(Watched) for name, array in subject.inputs().items()}
    watches = [weakref.ref(array) for array in inputs.values()]
    run(runtime, handle, inputs)
    del inputs
    gc.collect()
    assert [watch() for watch in watches] == [None, None]


def test_two_engines_answer_from_two_threads_at_once(
    subject: Subject, runtime: InferenceRuntime, entry: EngineCacheEntry
) -> None:
    handles = [runtime.deserialize_engine(entry) for _ in range(2)]
    start = threading.Barrier(2, timeout=30)
    results: list[list[np.ndarray]] = [[], []]

    def work(index: int) -> None:
        start.wait()
        for seed in range(20):
            results[index].append(run(runtime, handles[index], subject.inputs(seed=100 * index + seed))["descriptor"])

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    for index in range(2):
        assert len(results[index]) == 20
        for seed, found in enumerate(results[index]):
            expected = subject.reference(subject.inputs(seed=100 * index + seed))["descriptor"]
            np.testing.assert_allclose(found, expected, rtol=2e-3, atol=max(1e-3, subject.rounding))


# Letting go.


def test_releasing_twice_does_nothing(runtime: InferenceRuntime, entry: EngineCacheEntry) -> None:
    first, second = runtime.deserialize_engine(entry), runtime.deserialize_engine(entry)
    runtime.release_engine(first)
    runtime.release_engine(first)
    with pytest.raises(EngineBuildError):
        runtime.compile_engine(entry.path, entry.build_config)
    runtime.release_engine(second)


def test_a_released_engine_does_not_run(subject: Subject, runtime: InferenceRuntime, handle: EngineHandle) -> None:
    runtime.release_engine(handle)
    with pytest.raises(InferenceError, match="released"):
        runtime.infer(handle, subject.inputs())


def test_an_engine_of_another_runtime_instance_does_not_run(subject: Subject, handle: EngineHandle) -> None:
    with pytest.raises(InferenceError, match="belongs to another runtime"):
        subject.make(None).infer(handle, subject.inputs())


# Suspending and resuming.


@pytest.fixture
def suspends(runtime: InferenceRuntime) -> SuspendsEngines:
    assert isinstance(runtime, SuspendsEngines)
    return runtime


of_suspending_runtimes = pytest.mark.parametrize(
    "subject", ["fake", pytest.param("pytorch_fp16", marks=torch), "tensorrt", on_a_device], indirect=True
)


def test_which_runtimes_suspend_their_engines(subject: Subject, runtime: InferenceRuntime) -> None:
    suspends = not subject.supervised and subject.label in ("fake", "pytorch_fp16[cpu]", "tensorrt")
    assert isinstance(runtime, SuspendsEngines) == suspends


@pytest.mark.parametrize("ran_before", [False, True])
@of_suspending_runtimes
def test_a_resumed_engine_gives_the_results_that_it_gave_before(
    subject: Subject, suspends: SuspendsEngines, handle: EngineHandle, ran_before: bool
) -> None:
    expected = run(suspends, handle, subject.inputs()) if ran_before else subject.reference(subject.inputs())
    suspends.suspend_engine(handle)
    resumed = suspends.resume_engine(handle)
    assert resumed.entry == handle.entry
    for name, array in run(suspends, resumed, subject.inputs()).items():
        np.testing.assert_allclose(array, expected[name], rtol=2e-3, atol=subject.rounding)


@of_suspending_runtimes
def test_an_engine_is_resumed_again_and_again(
    subject: Subject, suspends: SuspendsEngines, handle: EngineHandle
) -> None:
    expected = run(suspends, handle, subject.inputs())
    for _ in range(3):
        suspends.suspend_engine(handle)
        handle = suspends.resume_engine(handle)
    np.testing.assert_array_equal(run(suspends, handle, subject.inputs())["descriptor"], expected["descriptor"])


@of_suspending_runtimes
def test_a_suspended_engine_does_not_run_and_says_so(
    subject: Subject, suspends: SuspendsEngines, handle: EngineHandle
) -> None:
    suspends.suspend_engine(handle)
    suspends.suspend_engine(handle)
    with pytest.raises(InferenceError, match=r"descriptor: expected .* loaded, found one that is suspended; resume it"):
        suspends.infer(handle, subject.inputs())


@of_suspending_runtimes
def test_a_suspended_handle_is_of_no_more_use_once_it_was_resumed(
    subject: Subject, suspends: SuspendsEngines, handle: EngineHandle
) -> None:
    suspends.suspend_engine(handle)
    resumed = suspends.resume_engine(handle)
    with pytest.raises(InferenceError, match=r"descriptor: expected .* suspended here, found one that was released"):
        suspends.resume_engine(handle)
    with pytest.raises(InferenceError, match="released"):
        suspends.suspend_engine(handle)
    with pytest.raises(InferenceError, match="released"):
        suspends.infer(handle, subject.inputs())
    suspends.release_engine(handle)  # does nothing, to the resumed engine least of all
    assert suspends.infer(resumed, subject.inputs())


@of_suspending_runtimes
def test_an_engine_that_was_not_suspended_is_not_resumed(suspends: SuspendsEngines, handle: EngineHandle) -> None:
    with pytest.raises(InferenceError, match=r"descriptor: expected .* suspended here, found one that is loaded"):
        suspends.resume_engine(handle)


@of_suspending_runtimes
def test_a_released_engine_is_neither_suspended_nor_resumed(suspends: SuspendsEngines, handle: EngineHandle) -> None:
    suspends.release_engine(handle)
    with pytest.raises(InferenceError, match="released"):
        suspends.suspend_engine(handle)
    with pytest.raises(InferenceError, match="released"):
        suspends.resume_engine(handle)


@of_suspending_runtimes
def test_a_suspended_engine_of_another_runtime_instance_is_not_resumed(
    subject: Subject, suspends: SuspendsEngines, handle: EngineHandle
) -> None:
    suspends.suspend_engine(handle)
    other = subject.make(None)
    assert isinstance(other, SuspendsEngines)
    with pytest.raises(InferenceError, match="belongs to another runtime"):
        other.resume_engine(handle)


@of_suspending_runtimes
def test_nothing_is_compiled_beside_a_suspended_engine_until_it_is_released(
    subject: Subject, suspends: SuspendsEngines, handle: EngineHandle
) -> None:
    suspends.suspend_engine(handle)
    with pytest.raises(EngineBuildError, match="while engines are loaded \\(descriptor\\)"):
        suspends.compile_engine(subject.source, subject.build_config)
    suspends.release_engine(handle)
    with pytest.raises(InferenceError, match="released"):
        suspends.resume_engine(handle)
    assert suspends.compile_engine(subject.source, subject.build_config)


@of_suspending_runtimes
def test_of_two_threads_that_resume_one_engine_one_gets_it(suspends: SuspendsEngines, handle: EngineHandle) -> None:
    for _ in range(20):
        suspends.suspend_engine(handle)
        start = threading.Barrier(2, timeout=30)
        results: list[EngineHandle | InferenceError] = []

        def work(
            suspended: EngineHandle = handle,
            start: threading.Barrier = start,
            results: list[EngineHandle | InferenceError] = results,
        ) -> None:
            start.wait()
            try:
                results.append(suspends.resume_engine(suspended))
            except InferenceError as error:
                results.append(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        resumed = [each for each in results if not isinstance(each, InferenceError)]
        assert (len(results), len(resumed)) == (2, 1)
        handle = resumed[0]


@of_suspending_runtimes
def test_an_engine_answers_while_another_one_is_suspended_and_resumed(
    subject: Subject, suspends: SuspendsEngines, entry: EngineCacheEntry
) -> None:
    bystander, restarted = suspends.deserialize_engine(entry), suspends.deserialize_engine(entry)
    expected = subject.reference(subject.inputs())["descriptor"]
    done = threading.Event()
    failures: list[BaseException] = []

    def fly() -> None:
        try:
            while not done.is_set():
                found = run(suspends, bystander, subject.inputs())["descriptor"]
                np.testing.assert_allclose(found, expected, rtol=2e-3, atol=max(1e-3, subject.rounding))
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
            failures.append(error)

    flying = threading.Thread(target=fly, daemon=True)
    flying.start()
    try:
        for _ in range(20):
            suspends.suspend_engine(restarted)
            restarted = suspends.resume_engine(restarted)
            found = run(suspends, restarted, subject.inputs())["descriptor"]
            np.testing.assert_allclose(found, expected, rtol=2e-3, atol=max(1e-3, subject.rounding))
    finally:
        done.set()
        flying.join(timeout=60)
    assert not flying.is_alive()
    assert failures == []


# Thermal state.


@of_strategies
def test_without_a_feed_there_is_no_thermal_state(runtime: InferenceRuntime) -> None:
    with pytest.raises(TelemetryUnavailableError, match="without a thermal feed"):
        runtime.thermal_state()


@pytest.mark.parametrize("subject", ["supervised fake"], indirect=True)
def test_on_actors_a_board_without_telemetry_does_not_throttle_and_says_that_it_is_lost(
    runtime: InferenceRuntime,
) -> None:
    state = runtime.thermal_state()
    assert (state.source_lost, state.thermal_throttle_active) == (True, False)
    assert math.isnan(state.gpu_temp_c)
    assert math.isnan(state.cpu_temp_c)


@of_strategies
def test_the_thermal_state_is_that_of_the_feed(subject: Subject) -> None:
    class Feed:
        def thermal_state(self) -> ThermalState:
            return ThermalState(gpu_temp_c=83.0, thermal_throttle_active=True, measured_at=5)

    assert subject.make(Feed()).thermal_state() == Feed().thermal_state()
