"""The trap, on a real network: something else under the same names is compiled again, and does not take off.

The network is squeezenet with seeded weights and a dynamic batch, compiled and run by ONNX Runtime.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from messages import EngineBuildError, EngineDeserializeError
from runtimes.config import C7InferenceConfig
from runtimes.flight_plan import FlightPlan, FlightSection, ModelSection, ProfileSection
from runtimes.host import detect_host
from runtimes.inference_factory import build_inference_runtime
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.measurements import PowerMode
from runtimes.provisioning.build_child import Heartbeat
from runtimes.provisioning.build_request import BuildEngine, EngineBuilt, RuntimeProbed
from runtimes.provisioning.progress import ProvisionProgress
from runtimes.provisioning.provision import provision
from runtimes.provisioning.signed_off_build import build_signed_off, compile_folder
from runtimes.store.engine_artifact import artifact_files, read_entry, read_self_test
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.engine_writer import sign_off
from runtimes.store.staged_generation import stage_generation
from runtimes.takeoff_load import deserialize_cached_engine, outdated_models

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

MAXN = PowerMode(name="MAXN_SUPER", cpu_max_mhz=1728, gpu_max_mhz=1020)
LOW = PowerMode(name="15W", cpu_max_mhz=1190, gpu_max_mhz=612)
CONFIG = C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu")
SHAPE = (1, 3, 224, 224)


class RealBuilder:
    """ONNX Runtime in this process. `recorded` is what the engine's metadata says otherwise than this machine would."""

    def __init__(self, **recorded: Any) -> None:
        self.recorded = recorded
        self.built: list[str] = []

    def probe(self, config: C7InferenceConfig) -> RuntimeProbed:
        return RuntimeProbed(
            build_inference_runtime(config).current_runtime_label(), detect_host(onnxruntime.__version__)
        )

    def build(self, request: BuildEngine, *, timeout_s: float, heartbeat: Heartbeat) -> EngineBuilt:
        self.built.append(request.model)
        config = msgspec.structs.replace(request.config, engine_dir=compile_folder(request))
        runtime = build_inference_runtime(config)
        built = build_signed_off(request, runtime, detect_host(onnxruntime.__version__))
        if self.recorded:
            record(read_entry(request.directory / built.engine), **self.recorded)
        return built


class NoBuilder(RealBuilder):
    """Says which builds were asked for, and builds nothing."""

    def build(self, request: BuildEngine, *, timeout_s: float, heartbeat: Heartbeat) -> EngineBuilt:
        self.built.append(request.model)
        raise EngineBuildError("nothing is compiled here")


def record(entry: EngineCacheEntry, **changes: Any) -> EngineCacheEntry:
    """Write the engine's metadata and sidecar anew, as the machine or program would have that these changes are of."""
    changed = msgspec.structs.replace(entry, **changes)
    assert changed.memory is not None
    answers = read_self_test(entry)
    return sign_off(changed, self_test=answers, power=changed.power, memory=changed.memory, accuracy=changed.accuracy)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "vpr.onnx"
    model = onnx.load(Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_squeezenet.onnx")
    random = np.random.default_rng(11)
    shapes = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "ConstantOfShape"]:
        shape = tuple(int(extent) for extent in shapes[node.input[0]])
        array = random.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:])) if shape[1:] else random.random(shape)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), node.output[0]))
        model.graph.node.remove(node)
    for value in (*model.graph.input, *model.graph.output):
        if value.name in ("data_0", "softmaxout_1"):
            value.type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, path)
    return path


def plan_in(folder: Path, input_name: str = "data_0") -> FlightPlan:
    section = ModelSection(
        source=folder / "vpr.onnx",
        precision="fp32",
        deadline_ms=500,
        samples=folder / "samples",
        profiles={input_name: ProfileSection(min=SHAPE, opt=SHAPE, max=(2, *SHAPE[1:]))},
    )
    return FlightPlan(
        flight=FlightSection(name="survey", store=folder / "engines"), runtime=CONFIG, models={"vpr": section}
    )


def save_samples(folder: Path, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    image = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    np.savez(folder / "0.npz", data_0=image)


@pytest.fixture(scope="module")
def provisioned(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with source, samples and the store of one real provisioning, made once and never written again."""
    folder = tmp_path_factory.mktemp("provisioned")
    shutil.copy(network, folder / "vpr.onnx")
    save_samples(folder / "samples", seed=1)
    provision(plan_in(folder), progress=lambda _: None, builder=RealBuilder())
    return folder


@pytest.fixture
def plan(provisioned: Path, tmp_path: Path) -> FlightPlan:
    shutil.copytree(provisioned, tmp_path, dirs_exist_ok=True)
    return plan_in(tmp_path)


def current(plan: FlightPlan) -> Generation:
    generation = EngineStore(plan.flight.store).current()
    assert generation is not None
    return generation


def with_section(plan: FlightPlan, **changes: Any) -> FlightPlan:
    return msgspec.structs.replace(plan, models={"vpr": msgspec.structs.replace(plan.models["vpr"], **changes)})


def why_compiled(plan: FlightPlan, power: PowerMode | None = None) -> str:
    """Why provisioning compiles the model again; it fails there, because nothing is compiled here."""
    told: list[ProvisionProgress] = []
    builder = NoBuilder()
    with pytest.raises(EngineBuildError, match="nothing is compiled here"):
        provision(plan, progress=told.append, builder=builder, detect_power=lambda: power)
    assert builder.built == ["vpr"]
    (decided,) = [each for each in told if each.step == "decided"]
    assert decided.decision == "compile"
    return decided.reason


def test_what_did_not_change_takes_off_and_is_not_compiled(plan: FlightPlan) -> None:
    generation = current(plan)
    assert outdated_models(plan, generation) == {}
    assert provision(plan, progress=lambda _: None, builder=NoBuilder()) == generation
    runtime = build_inference_runtime(CONFIG)
    runtime.release_engine(deserialize_cached_engine(runtime, generation.entries["vpr"]))


def test_retrained_weights_under_the_same_name(plan: FlightPlan) -> None:
    former = current(plan)
    source = plan.models["vpr"].source
    model = onnx.load(source)
    weights = model.graph.initializer[-1]
    array = onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.numpy_helper.from_array(array + np.float32(1e-3), weights.name))
    size_bytes = source.stat().st_size
    onnx.save(model, source)
    assert source.stat().st_size == size_bytes

    assert outdated_models(plan, former)["vpr"].startswith("source changed: engine from sha256")
    builder = RealBuilder()
    second = provision(plan, progress=lambda _: None, builder=builder)
    assert builder.built == ["vpr"]
    assert second.entries["vpr"].path.name == former.entries["vpr"].path.name
    assert not np.array_equal(answer(former), answer(second))
    assert outdated_models(plan, second) == {}


def answer(generation: Generation) -> np.ndarray:
    runtime = build_inference_runtime(CONFIG)
    handle = deserialize_cached_engine(runtime, generation.entries["vpr"])
    image = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)
    (output,) = runtime.infer(handle, {"data_0": image}).values()
    runtime.release_engine(handle)
    return np.asarray(output)


WIDER = {"data_0": ProfileSection(min=SHAPE, opt=SHAPE, max=(4, *SHAPE[1:]))}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"profiles": WIDER},
            "optimization_profiles: engine data_0 1x3x224x224 / 1x3x224x224 / 2x3x224x224,"
            " plan data_0 1x3x224x224 / 1x3x224x224 / 4x3x224x224",
        ),
        ({"workspace_mb": 2048}, "workspace_mb: engine 1024, plan 2048"),
        ({"precision": "fp16"}, "precision: engine fp32, plan fp16"),
        ({"samples": None}, "samples: engine sha256 "),
        ({"accuracy_tolerance": 1e-12}, "plan tolerates 1e-12"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_another_plan_for_the_same_source(plan: FlightPlan, changes: dict[str, Any], reason: str) -> None:
    changed = with_section(plan, **changes)
    assert reason in outdated_models(changed, current(plan))["vpr"]
    assert reason in why_compiled(changed)


def test_other_samples_under_the_same_name(plan: FlightPlan) -> None:
    samples = plan.models["vpr"].samples
    assert samples is not None
    save_samples(samples, seed=2)
    assert outdated_models(plan, current(plan))["vpr"].startswith("samples: engine sha256")
    assert why_compiled(plan).startswith("samples: engine sha256")


@pytest.mark.parametrize("field", ["runtime_version", "cuda", "l4t", "device_name", "sm_count", "machine"])
def test_another_host_whose_engines_have_the_same_name(plan: FlightPlan, field: str) -> None:
    here = RealBuilder().probe(CONFIG).host
    was = getattr(here, field)
    there = msgspec.structs.replace(here, **{field: was + 1 if isinstance(was, int) else f"{was}.9"})
    committed = commit_recorded(plan, host=there)
    difference = f"{field}: engine {getattr(there, field)}, host {was}"
    with pytest.raises(EngineDeserializeError, match=r"vpr does not take off: .*c7 provision") as refusal:
        deserialize_cached_engine(build_inference_runtime(CONFIG), committed.entries["vpr"])
    assert difference in str(refusal.value)
    assert why_compiled(plan) == f"host: {difference}"


def test_an_engine_of_another_runtime_under_the_same_name(plan: FlightPlan) -> None:
    committed = commit_recorded(plan, runtime_label="onnx_trt_ep[cuda:0]")
    with pytest.raises(EngineDeserializeError, match=r"compiled by onnx_trt_ep\[cuda:0\], configured is onnx_trt_ep\["):
        deserialize_cached_engine(build_inference_runtime(CONFIG), committed.entries["vpr"])
    assert why_compiled(plan) == "runtime: engine onnx_trt_ep[cuda:0], configured onnx_trt_ep[cpu]"


def test_another_power_mode(plan: FlightPlan) -> None:
    committed = commit_recorded(plan, power=MAXN)
    both = "power mode: engine MAXN_SUPER (CPU 1728 MHz, GPU 1020 MHz), board 15W (CPU 1190 MHz, GPU 612 MHz)"
    assert outdated_models(plan, committed, detect_power=lambda: MAXN) == {}
    assert outdated_models(plan, committed, detect_power=lambda: LOW)["vpr"].startswith(both)
    assert why_compiled(plan, LOW) == both


def test_an_engine_that_was_compiled_and_never_signed_off(plan: FlightPlan) -> None:
    runtime = build_inference_runtime(msgspec.structs.replace(CONFIG, engine_dir=plan.flight.store.parent / "bare"))
    bare = runtime.compile_engine(plan.models["vpr"].source, plan.models["vpr"].build_config())
    unsigned = msgspec.structs.replace(current(plan), entries={"vpr": bare})
    refusal = outdated_models(plan, unsigned)["vpr"]
    assert refusal.startswith(
        "not signed off: the engine has no memory record; not signed off: the engine has no known answers"
    )


def test_an_engine_of_the_same_name_from_elsewhere_in_the_place_of_the_committed_one(plan: FlightPlan) -> None:
    former = current(plan)
    source = plan.models["vpr"].source
    model = onnx.load(source)
    model.doc_string = "another one"
    onnx.save(model, source)
    second = provision(plan, progress=lambda _: None, builder=RealBuilder())
    for path in artifact_files(former.entries["vpr"]):
        target = second.path / path.name
        target.unlink()
        shutil.copy(path, target)
    swapped = current(plan)
    assert swapped.entries == {}
    refusal = outdated_models(plan, swapped)["vpr"]
    assert f"{second.entries['vpr'].path}.json: " in refusal
    assert "c7 provision" in refusal
    assert why_compiled(plan).startswith("engine not usable: ")


def commit_recorded(plan: FlightPlan, **changes: Any) -> Generation:
    """The store as it would be had the engine been built with these changes: same names, same bytes of the engine."""
    generation = current(plan)
    store = EngineStore(plan.flight.store)
    with stage_generation(store) as staged:
        for path in artifact_files(generation.entries["vpr"]):
            shutil.copy(path, staged.directory / path.name)
        record(read_entry(staged.directory / generation.entries["vpr"].path.name), **changes)
        committed = staged.commit()
    shutil.rmtree(generation.path)
    return committed
