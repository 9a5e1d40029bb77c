"""From a source to a signed-off engine: what is measured, what is refused, and that nothing half done is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

from messages import C7Error, CalibrationCacheError, ConfigError, EngineBuildError, EngineStoreError, Tensor, TensorSpec
from runtimes.config import C7InferenceConfig, TensorrtSection
from runtimes.fake_runtime import FakeRuntime, Step
from runtimes.fake_steps import computes, returns
from runtimes.inference_factory import build_inference_runtime
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry, EngineHandle, InferenceRuntime
from runtimes.npz_file import decode_npz, write_npz
from runtimes.onnx_trt_ep_runtime import OnnxTrtEpRuntime
from runtimes.provisioning import build_one
from runtimes.provisioning.build_one import answer_request
from runtimes.provisioning.build_request import BuildEngine, EngineBuilt
from runtimes.provisioning.signed_off_build import build_signed_off, compile_folder
from runtimes.samples import Samples
from runtimes.sign_off import self_test
from runtimes.sign_off.reference import ReferenceUnavailableError
from runtimes.source_model import read_source
from runtimes.store.engine_artifact import artifact_files, read_entry, read_self_test, verify_artifact

MIB = 1024**2
CONFIG = C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu")
PROFILE = (("image", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)), ("bias_by_image", (1, 4), (2, 4), (4, 4)))
FP32 = BuildConfig(precision="fp32", optimization_profiles=PROFILE)
RESULT = {"y": np.arange(1, 4, dtype=np.float32)}
Change = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def request_for(source: Path, build_config: BuildConfig = FP32, **fields: object) -> BuildEngine:
    folder = source.parent / "store"
    (folder / "generation").mkdir(parents=True)
    (folder / "scratch").mkdir()
    request = BuildEngine(
        config=CONFIG,
        model="vpr",
        source=source,
        source_sha256=read_source(source, suffix=source.suffix).sha256,
        build_config=build_config,
        directory=folder / "generation",
        scratch=folder / "scratch",
    )
    return msgspec.structs.replace(request, **fields)


class DamagedRuntime(OnnxTrtEpRuntime):
    """ONNX Runtime whose compiled engines compute something else than their source, as a bad tactic would."""

    def __init__(self, config: C7InferenceConfig, damage: Change) -> None:
        super().__init__(config)
        self._damage = damage

    def infer(self, handle: EngineHandle, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = super().infer(handle, inputs)
        return dict(self._damage({name: np.array(tensor) for name, tensor in outputs.items()}))


def onnx_runtime(request: BuildEngine, damage: Change | None = None) -> InferenceRuntime:
    pytest.importorskip("onnxruntime")
    config = msgspec.structs.replace(
        request.config, engine_dir=compile_folder(request), storage_room_bytes=request.room_bytes
    )
    return OnnxTrtEpRuntime(config) if damage is None else DamagedRuntime(config, damage)


def build(request: BuildEngine, runtime: InferenceRuntime) -> EngineCacheEntry:
    host = FakeRuntime({"vpr": returns(RESULT)}).entry("vpr").host
    built = build_signed_off(request, runtime, host)
    return read_entry(request.directory / built.engine)


def fake_source(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no ONNX at all")
    return path


def scaled(output: str, factor: float) -> Change:
    return lambda outputs: {**outputs, output: outputs[output] * np.float32(factor)}


# What is signed off.


def test_a_build_leaves_an_engine_with_everything_that_is_asked_of_one(descriptor_onnx: Path) -> None:
    request = request_for(descriptor_onnx, accuracy_tolerance=1e-4)
    runtime = onnx_runtime(request)
    entry = build(request, runtime)
    verify_artifact(entry)
    assert entry.model == "vpr"
    assert entry.memory is not None
    assert entry.memory.run_bytes > 0
    assert entry.accuracy is not None
    assert set(entry.accuracy.outputs) == {"descriptor", "echo"}
    assert entry.accuracy.outputs["echo"].relative_rms == 0.0
    assert entry.accuracy.worst < 1e-5
    assert (entry.accuracy.sample_count, entry.accuracy.samples_sha256) == (3, None)
    assert "graph optimisations off, fp32" in entry.accuracy.reference
    answers = read_self_test(entry)
    assert answers is not None
    names = decode_npz(Path("x"), answers, max_bytes=10**6).keys()
    assert names == {"input/image", "input/bias_by_image", "output/descriptor", "output/echo"}
    assert runtime.compile_engine(descriptor_onnx, FP32), "nothing was left loaded"


def test_the_generation_holds_the_engines_own_files_and_nothing_else(descriptor_onnx: Path) -> None:
    request = request_for(descriptor_onnx)
    entry = build(request, onnx_runtime(request))
    assert set(request.directory.iterdir()) == set(artifact_files(entry))


def test_given_samples_are_what_accuracy_and_known_answers_stand_on(descriptor_onnx: Path, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    random = np.random.default_rng(1)
    images = [random.normal(size=(count, 3, 8, 8)) for count in (1, 4)]  # float64: cast once, for both sides
    for index, image in enumerate(images):
        write_npz(folder / f"{index}.npz", {"image": image, "bias_by_image": np.zeros((len(image), 4))})
    request = request_for(descriptor_onnx, samples=folder, accuracy_tolerance=1e-4)
    entry = build(request, onnx_runtime(request))
    assert entry.accuracy is not None
    assert (entry.accuracy.sample_count, entry.accuracy.samples_sha256) == (2, Samples.open(folder).sha256)
    assert entry.accuracy.outputs["echo"].relative_rms == 0.0
    answers = decode_npz(Path("x"), read_self_test(entry) or b"", max_bytes=10**6)
    np.testing.assert_array_equal(answers["input/image"], images[0].astype(np.float32))


def test_the_memory_of_a_heavy_engine_is_about_its_weights(save_onnx: Callable[..., Path]) -> None:
    """In the child process, as provisioning runs it: a test's own heap is no measure."""
    from onnx import TensorProto, helper

    from runtimes.provisioning.build_child import build_engine

    pytest.importorskip("onnxruntime")
    size = 2048
    weight = np.random.default_rng(2).normal(size=(size, size)).astype(np.float32)
    path = save_onnx(
        "heavy",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", size])],
        [("y", TensorProto.FLOAT, ["n", size])],
        {"w": weight},
    )
    profile = (("x", (1, size), (1, size), (1024, size)),)
    request = request_for(path, BuildConfig(precision="fp32", optimization_profiles=profile))
    entry = read_entry(request.directory / build_engine(request).engine)
    assert entry.memory is not None
    print(f"{weight.nbytes} bytes of weights: {entry.memory}")
    # A kernel may keep its own packing of the weights beside them, and a run may fit into what loading left unused.
    assert weight.nbytes <= entry.memory.load_bytes <= 2.5 * weight.nbytes
    of_largest_shape = 1024 * size * 4
    assert entry.memory.load_bytes + entry.memory.run_bytes >= weight.nbytes + of_largest_shape


class HoardingRuntime(FakeRuntime):
    """Keeps as much again at the second run of each loaded engine, as ONNX Runtime's arena does."""

    def __init__(self, kept_bytes: int) -> None:
        super().__init__({"vpr": returns(RESULT)})
        self._kept_bytes = kept_bytes
        self._runs: Counter[int] = Counter()
        self._kept: list[np.ndarray] = []

    def infer(self, handle: EngineHandle, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._runs[id(handle)] += 1
        if self._runs[id(handle)] == 4:
            self._kept.append(np.ones(self._kept_bytes, np.uint8))
        return super().infer(handle, inputs)


def test_memory_that_an_engine_takes_at_a_later_run_is_measured_too(tmp_path: Path) -> None:
    entry = build(request_for(fake_source(tmp_path), BuildConfig()), HoardingRuntime(64 * MIB))
    assert entry.memory is not None
    assert entry.memory.run_bytes >= 60 * MIB


def test_known_answers_count_as_memory_of_a_run_twice_as_a_load_has_them(tmp_path: Path) -> None:
    """Once as the file, once as the arrays in it."""
    inputs = {"x": TensorSpec((32 * MIB,), "uint8")}
    entry = build(
        request_for(fake_source(tmp_path), BuildConfig()), FakeRuntime({"vpr": returns(RESULT)}, inputs={"vpr": inputs})
    )
    assert entry.memory is not None
    assert entry.memory.run_bytes >= 60 * MIB


def test_a_former_calibration_cache_is_offered_to_the_build_and_not_left_where_it_was_of_no_use(
    descriptor_onnx: Path, tmp_path: Path
) -> None:
    former = tmp_path / "former.calibration"
    former.write_bytes(b"scales")
    request = request_for(descriptor_onnx, calibration_cache=former)
    runtime = onnx_runtime(request)
    fake_host = FakeRuntime({"vpr": returns(RESULT)}).entry("vpr").host
    seen: list[bytes] = []
    compile_engine = runtime.compile_engine

    def compile_and_look(model_path: Path, build_config: BuildConfig) -> EngineCacheEntry:
        seen.extend(path.read_bytes() for path in compile_folder(request).glob("vpr__*_fp32.engine.calibration"))
        return compile_engine(model_path, build_config)

    runtime.compile_engine = compile_and_look  # type: ignore[method-assign]
    build_signed_off(request, runtime, fake_host)
    assert seen == [b"scales"]
    assert not list(request.directory.glob("*.calibration"))


# What is refused, with the directory as it was.


def refused(request: BuildEngine, runtime: InferenceRuntime, kind: type[C7Error] = EngineBuildError) -> str:
    with pytest.raises(kind) as refusal:
        build(request, runtime)
    assert list(request.directory.iterdir()) == []
    return str(refusal.value)


@pytest.mark.parametrize("factor", [1.02, 0.0, -1.0])
def test_a_damaged_engine_over_the_tolerance_is_refused_with_the_figures(descriptor_onnx: Path, factor: float) -> None:
    request = request_for(descriptor_onnx, accuracy_tolerance=0.01)
    text = refused(request, onnx_runtime(request, scaled("descriptor", factor)))
    error = abs(factor - 1)
    assert f"output descriptor: expected a relative error of at most 0.01, found {error:.2g}" in text
    assert "echo" not in text


def test_a_damaged_engine_within_the_tolerance_passes_and_its_error_is_on_record(descriptor_onnx: Path) -> None:
    request = request_for(descriptor_onnx, accuracy_tolerance=0.05)
    entry = build(request, onnx_runtime(request, scaled("descriptor", 1.02)))
    assert entry.accuracy is not None
    assert entry.accuracy.outputs["descriptor"].relative_rms == pytest.approx(0.02, rel=1e-3)


@pytest.mark.parametrize("tolerance", [None, 1e9])
def test_a_value_that_is_not_finite_is_refused_whatever_the_tolerance(
    descriptor_onnx: Path, tolerance: float | None
) -> None:
    def poison(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs["descriptor"][0, 0] = np.nan
        return outputs

    request = request_for(descriptor_onnx, accuracy_tolerance=tolerance)
    text = refused(request, onnx_runtime(request, poison))
    assert "output descriptor, sample 0: 1 of 8 values are not finite" in text


def test_an_output_of_another_shape_is_refused_with_both(descriptor_onnx: Path) -> None:
    request = request_for(descriptor_onnx)
    text = refused(request, onnx_runtime(request, lambda outputs: {**outputs, "echo": outputs["echo"][:1]}))
    assert "output echo, sample 0: expected shape [2, 3, 8, 8], found [1, 3, 8, 8]" in text


def test_an_engine_that_does_not_repeat_itself_is_refused(tmp_path: Path) -> None:
    drift = iter(range(1, 100))
    step = computes(lambda _: {"y": np.full(3, next(drift), np.float32)})
    request = request_for(fake_source(tmp_path), BuildConfig())
    text = refused(request, FakeRuntime({"vpr": step}))
    assert "loaded a second time, it does not repeat itself" in text


def test_an_engine_that_does_not_run_at_its_largest_shape_is_refused(descriptor_onnx: Path) -> None:
    def at_most_three(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(outputs["descriptor"]) > 3:
            from messages import InferenceError

            raise InferenceError("vpr: illegal address")
        return outputs

    request = request_for(descriptor_onnx)
    text = refused(request, onnx_runtime(request, at_most_three))
    assert "does not run on its samples or the shapes of its profile: vpr: illegal address" in text


def test_a_tolerance_without_a_reference_is_refused_and_no_tolerance_says_why_there_is_no_figure(
    tmp_path: Path,
) -> None:
    step: Step = returns(RESULT)
    request = request_for(fake_source(tmp_path), BuildConfig(), accuracy_tolerance=0.5)
    assert "there is no reference to hold the engine against" in refused(request, FakeRuntime({"vpr": step}))
    (tmp_path / "more").mkdir()
    request = request_for(fake_source(tmp_path / "more"), BuildConfig())
    runtime = FakeRuntime({"vpr": step})
    built = build_signed_off(request, runtime, runtime.entry("vpr").host)
    assert "cannot open it" in built.no_accuracy_because
    entry = read_entry(request.directory / built.engine)
    assert entry.accuracy is None
    assert entry.memory is not None
    assert entry.self_test_sha256 is not None


def test_a_reference_that_fails_in_the_middle_is_no_reference(
    descriptor_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runtimes.sign_off.onnx_reference import OnnxReference

    def fail(*_: object) -> dict[str, np.ndarray]:
        raise ReferenceUnavailableError("an operator is missing")

    request = request_for(descriptor_onnx, accuracy_tolerance=0.5)
    runtime = onnx_runtime(request)
    monkeypatch.setattr(OnnxReference, "run", fail)
    assert "an operator is missing" in refused(request, runtime)


def test_samples_that_do_not_fit_are_refused_by_file_and_input(descriptor_onnx: Path, tmp_path: Path) -> None:
    write_npz(tmp_path / "one.npz", {"image": np.zeros((1, 3, 8, 8), np.float32)})
    request = request_for(descriptor_onnx, samples=tmp_path / "one.npz")
    assert "one.npz: the sample does not fit" in refused(request, onnx_runtime(request), ConfigError)


def test_a_dynamic_model_without_profile_and_samples_is_refused_with_the_table_to_add(descriptor_onnx: Path) -> None:
    request = request_for(descriptor_onnx, BuildConfig(precision="fp32"))
    assert "[models.vpr.profiles.image]" in refused(request, onnx_runtime(request), ConfigError)


def test_answers_too_large_for_the_store_are_recorded_at_the_smallest_shapes_or_refused(
    descriptor_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for(descriptor_onnx)
    runtime = onnx_runtime(request)
    monkeypatch.setattr(self_test, "SELF_TEST_MAX_BYTES", 2000)
    entry = build(request, runtime)
    answers = decode_npz(Path("x"), read_self_test(entry) or b"", max_bytes=10**6)
    assert answers["input/image"].shape == (1, 3, 8, 8)
    monkeypatch.setattr(self_test, "SELF_TEST_MAX_BYTES", 1000)
    (descriptor_onnx.parent / "again").mkdir()
    copy = descriptor_onnx.parent / "again" / descriptor_onnx.name
    copy.write_bytes(descriptor_onnx.read_bytes())
    request = request_for(copy)
    assert "its known answers cannot be kept" in refused(request, onnx_runtime(request))


def test_a_source_that_changed_meanwhile_is_refused(descriptor_onnx: Path) -> None:
    request = request_for(descriptor_onnx, source_sha256="0" * 64)
    assert "the source changed while it was provisioned" in refused(request, onnx_runtime(request))


@pytest.mark.parametrize("room_bytes", [100, 3000])
def test_an_engine_or_answers_over_the_storage_budget_are_refused(descriptor_onnx: Path, room_bytes: int) -> None:
    """100 bytes are too few for the engine, 3000 for the engine and its answers."""
    request = request_for(descriptor_onnx, room_bytes=room_bytes)
    assert "storage budget is too small" in refused(request, onnx_runtime(request), EngineStoreError)


def test_what_the_runtime_wrote_beside_the_engine_counts_too(descriptor_onnx: Path) -> None:
    """Room for the engine and all that is written after it, but not for the metadata that is there meanwhile."""
    free = request_for(descriptor_onnx)
    needed_bytes = sum(path.stat().st_size for path in artifact_files(build(free, onnx_runtime(free))))
    again = descriptor_onnx.parent / "again"
    again.mkdir()
    copy = again / descriptor_onnx.name
    copy.write_bytes(descriptor_onnx.read_bytes())
    request = request_for(copy, room_bytes=needed_bytes + 300)  # the metadata alone is a KiB
    assert "storage budget is too small" in refused(request, onnx_runtime(request), EngineStoreError)


def test_a_calibration_cache_that_is_not_trusted_keeps_its_own_error(descriptor_onnx: Path) -> None:
    request = request_for(descriptor_onnx)
    runtime = onnx_runtime(request)

    def distrust(*_: object) -> EngineCacheEntry:
        raise CalibrationCacheError("another dataset")

    runtime.compile_engine = distrust  # type: ignore[method-assign, assignment]
    assert refused(request, runtime, CalibrationCacheError) == "another dataset"


def test_a_request_answered_in_the_child_is_a_signed_off_engine(descriptor_onnx: Path) -> None:
    pytest.importorskip("onnxruntime")
    request = request_for(descriptor_onnx, accuracy_tolerance=1e-4, timing_cache=descriptor_onnx.parent)
    answer = answer_request(request)
    assert isinstance(answer, EngineBuilt)
    assert answer.no_accuracy_because == ""
    entry = read_entry(request.directory / answer.engine)
    assert entry.accuracy is not None


def test_an_engine_is_measured_with_scratch_memory_of_its_own_also_where_the_flight_shares_it(
    descriptor_onnx: Path, trt: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[C7InferenceConfig] = []

    def build_and_note(config: C7InferenceConfig, **options: Any) -> InferenceRuntime:
        asked.append(config)
        return build_inference_runtime(config, **options)

    monkeypatch.setattr(build_one, "build_inference_runtime", build_and_note)
    config = C7InferenceConfig(
        runtime="tensorrt", tensorrt=TensorrtSection(share_activation_memory=True, builder="api")
    )
    request = request_for(descriptor_onnx, config=config)
    answer_request(request)
    assert [each.tensorrt for each in asked] == [TensorrtSection(builder="api")]


@pytest.mark.torch
def test_an_fp16_program_is_held_against_itself_in_fp32(descriptor_pt2: Path, tmp_path: Path) -> None:
    from runtimes.pytorch_fp16_runtime import PytorchFp16Runtime

    source = tmp_path / "descriptor.pt2"
    source.write_bytes(descriptor_pt2.read_bytes())
    build_config = BuildConfig(optimization_profiles=PROFILE)
    config = C7InferenceConfig(runtime="pytorch_fp16")
    request = request_for(source, build_config, config=config, accuracy_tolerance=0.01)
    runtime = PytorchFp16Runtime(msgspec.structs.replace(config, engine_dir=compile_folder(request)))
    entry = build(request, runtime)
    assert entry.accuracy is not None
    assert entry.accuracy.outputs["echo"].relative_rms == 0.0, "rounding the inputs is no error of the engine"
    assert 1e-5 < entry.accuracy.outputs["descriptor"].relative_rms < 0.01
    tight = msgspec.structs.replace(request, accuracy_tolerance=1e-6, scratch=request.scratch.with_name("again"))
    tight.scratch.mkdir()
    runtime = PytorchFp16Runtime(msgspec.structs.replace(config, engine_dir=compile_folder(tight)))
    with pytest.raises(EngineBuildError, match="output descriptor: expected a relative error of at most 1e-06"):
        build(tight, runtime)
