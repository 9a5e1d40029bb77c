"""F1 with a real runtime: models are compiled once, used again with a reason, and committed all or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from messages import EngineBuildError, EngineStoreError
from runtimes.config import C7InferenceConfig
from runtimes.flight_plan import FlightPlan, FlightSection, ModelSection, ProfileSection
from runtimes.inference_factory import build_inference_runtime
from runtimes.provisioning.provision import ProvisionProgress, provision
from runtimes.store.engine_artifact import read_engine
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.takeoff_load import deserialize_cached_engine, outdated_models

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def save_source(path: Path, seed: int) -> Path:
    """A real ONNX model: `y = x @ w` with a seeded w of 4 x 4 and a dynamic number of rows."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", kind, ["n", 4])],
        [helper.make_tensor_value_info("y", kind, ["n", 4])],
        [weight],
    )
    path.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def section(source: Path, *, workspace_mb: int = 1024, rows: int = 4) -> ModelSection:
    profiles = {"x": ProfileSection(min=(1, 4), opt=(1, 4), max=(rows, 4))}
    return ModelSection(source=source, precision="fp32", deadline_ms=100, workspace_mb=workspace_mb, profiles=profiles)


def plan_in(folder: Path) -> FlightPlan:
    return FlightPlan(
        flight=FlightSection(name="survey", store=folder / "engines"),
        runtime=C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"),
        models={
            "vpr": section(save_source(folder / "models" / "ultravpr v3.onnx", seed=1)),
            "matcher": section(save_source(folder / "models" / "lightglue.onnx", seed=2)),
        },
    )


@pytest.fixture
def plan(tmp_path: Path) -> FlightPlan:
    return plan_in(tmp_path)


@pytest.fixture(scope="module")
def provisioned_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plan's store after its first provisioning, which takes a second: made once, and never written again."""
    plan = plan_in(tmp_path_factory.mktemp("provisioned"))
    provision(plan, progress=Progress())
    return plan.flight.store


@pytest.fixture
def first(plan: FlightPlan, provisioned_store: Path) -> Generation:
    """The plan's first generation, in a copy of the store that is this test's own."""
    shutil.copytree(provisioned_store, plan.flight.store)
    generation = EngineStore(plan.flight.store).current()
    assert generation is not None
    return generation


def with_model(plan: FlightPlan, name: str, model: ModelSection | None) -> FlightPlan:
    models = {key: value for key, value in plan.models.items() if key != name}
    return msgspec.structs.replace(plan, models=models if model is None else {**models, name: model})


class Progress:
    def __init__(self) -> None:
        self.all: list[ProvisionProgress] = []

    def __call__(self, progress: ProvisionProgress) -> None:
        self.all.append(progress)

    def decisions(self) -> dict[str, tuple[str, str]]:
        return {each.model: (each.decision, each.reason) for each in self.all if each.step == "decided"}

    def steps(self) -> list[str]:
        return [each.step for each in self.all]


@pytest.fixture
def progress() -> Progress:
    return Progress()


def run(plan: FlightPlan, model: str) -> np.ndarray:
    generation = EngineStore(plan.flight.store).current()
    assert generation is not None
    runtime = build_inference_runtime(plan.runtime)
    handle = deserialize_cached_engine(runtime, generation.entries[model])
    result = runtime.infer(handle, {"x": np.eye(4, dtype=np.float32)})["y"]
    runtime.release_engine(handle)
    assert isinstance(result, np.ndarray)
    return result


def weight(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32)


def test_an_empty_store_is_provisioned_and_its_engines_run(plan: FlightPlan, progress: Progress) -> None:
    generation = provision(plan, progress=progress)
    assert generation.number == 1
    assert {path.name.partition("__")[0] for path in generation.path.glob("*.engine")} == {"vpr", "matcher"}
    assert {entry.runtime_label for entry in generation.entries.values()} == {"onnx_trt_ep[cpu]"}
    assert generation.entries["vpr"].source_name == "ultravpr v3.onnx"
    assert progress.decisions() == {"vpr": ("compile", "no engine yet"), "matcher": ("compile", "no engine yet")}
    assert progress.steps()[-1] == "committed"
    np.testing.assert_array_equal(run(plan, "vpr"), weight(1))
    np.testing.assert_array_equal(run(plan, "matcher"), weight(2))
    assert outdated_models(plan, generation) == {}


def test_provisioning_again_compiles_nothing_and_writes_no_generation(plan: FlightPlan, progress: Progress) -> None:
    first = provision(plan, progress=Progress())
    assert provision(plan, progress=progress) == first
    assert progress.steps() == ["decided", "decided", "up_to_date"]
    assert EngineStore(plan.flight.store).numbers() == [1]


def test_a_retrained_source_under_the_same_name_is_compiled_and_the_rest_linked(
    plan: FlightPlan, first: Generation, progress: Progress
) -> None:
    save_source(plan.models["matcher"].source, seed=3)
    assert list(outdated_models(plan, first)) == ["matcher"]
    second = provision(plan, progress=progress)
    assert progress.decisions()["vpr"] == ("reuse", "unchanged")
    assert progress.decisions()["matcher"][1].startswith("source changed: engine from sha256")
    assert second.number == 2
    assert second.entries["vpr"].path.samefile(first.entries["vpr"].path)
    np.testing.assert_array_equal(run(plan, "matcher"), weight(3))
    compiling = next(each for each in progress.all if each.step == "compiling")
    assert compiling.former_build_ns == first.entries["matcher"].build_ns


def test_a_changed_build_configuration_is_compiled(plan: FlightPlan, first: Generation, progress: Progress) -> None:
    changed = with_model(plan, "vpr", section(plan.models["vpr"].source, workspace_mb=512, rows=8))
    assert list(outdated_models(changed, first)) == ["vpr"]
    second = provision(changed, progress=progress)
    assert progress.decisions()["vpr"] == (
        "compile",
        "workspace_mb: engine 1024, plan 512; optimization_profiles: engine x 1x4 / 1x4 / 4x4, plan x 1x4 / 1x4 / 8x4",
    )
    assert outdated_models(changed, second) == {}


def test_a_model_that_left_the_plan_leaves_the_generation(
    plan: FlightPlan, first: Generation, progress: Progress
) -> None:
    second = provision(with_model(plan, "matcher", None), progress=progress)
    assert (list(second.entries), second.number) == (["vpr"], 2)
    assert progress.decisions() == {"vpr": ("reuse", "unchanged")}
    assert outdated_models(plan, second) == {"matcher": "generation 2 has no engine of it"}
    assert outdated_models(plan, first) == {}


@pytest.mark.parametrize("which", ["engine", "json", "sha256"])
def test_a_damaged_engine_in_the_store_is_compiled_again(
    plan: FlightPlan, first: Generation, progress: Progress, which: str
) -> None:
    path = next(path for path in first.path.iterdir() if path.name.startswith("vpr") and path.name.endswith(which))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    second = provision(plan, progress=progress)
    decision, reason = progress.decisions()["vpr"]
    assert decision == "compile"
    assert path.name in reason
    np.testing.assert_array_equal(run(plan, "vpr"), weight(1))
    assert second.number == 2


@pytest.mark.parametrize("name", ["current", "gen-000001/manifest.json"])
@pytest.mark.usefixtures("first")
def test_a_damaged_store_is_provisioned_anew(plan: FlightPlan, progress: Progress, name: str) -> None:
    (plan.flight.store / name).write_bytes(b"nonsense")
    second = provision(plan, progress=progress)
    assert name.rpartition("/")[2] in progress.decisions()["vpr"][1]
    assert second.number == 2
    np.testing.assert_array_equal(run(plan, "vpr"), weight(1))


def test_a_failed_build_commits_nothing_and_what_was_finished_is_there_for_the_next_run(
    plan: FlightPlan, first: Generation, progress: Progress
) -> None:
    save_source(plan.models["vpr"].source, seed=9)
    source = plan.models["matcher"].source
    source.write_bytes(source.read_bytes()[:-40])
    with pytest.raises(
        EngineBuildError,
        match=r"matcher was not compiled.*lightglue\.onnx.*untouched; finished and kept for the next run: vpr$",
    ):
        provision(plan, progress=Progress())
    store = EngineStore(plan.flight.store)
    assert store.current() == first
    assert store.numbers() == [1]
    assert sorted(path.name for path in plan.flight.store.iterdir()) == [".drafts", ".lock", "current", "gen-000001"]
    save_source(source, seed=2)
    second = provision(plan, progress=progress)
    assert progress.decisions() == {
        "vpr": ("reuse", "finished by an interrupted run"),
        "matcher": ("reuse", "unchanged"),
    }
    np.testing.assert_array_equal(run(plan, "vpr"), weight(9))
    assert second.number == 2
    assert not (plan.flight.store / ".drafts").exists()


def test_a_missing_source_is_refused_before_anything_is_compiled(plan: FlightPlan, progress: Progress) -> None:
    plan.models["matcher"].source.unlink()
    with pytest.raises(EngineBuildError, match=r"\[models\.matcher\] source: .*lightglue\.onnx"):
        provision(plan, progress=progress)
    assert progress.all == []
    assert not plan.flight.store.exists()


def test_a_source_of_another_runtime_is_refused(plan: FlightPlan, progress: Progress) -> None:
    wrong = plan.models["vpr"].source.with_suffix(".pt2")
    wrong.write_bytes(b"program")
    with pytest.raises(EngineBuildError, match="pytorch_fp16 compiles it"):
        provision(with_model(plan, "vpr", section(wrong)), progress=progress)


def test_a_precision_that_the_runtime_cannot_do_is_refused_and_none_taken_instead(plan: FlightPlan) -> None:
    model = msgspec.structs.replace(plan.models["vpr"], precision="fp16")
    with pytest.raises(EngineBuildError, match="does precision fp32, got fp16"):
        provision(with_model(plan, "vpr", model), progress=Progress())
    assert EngineStore(plan.flight.store).current() is None


def test_a_store_that_cannot_be_written_is_refused(plan: FlightPlan, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    flight = msgspec.structs.replace(plan.flight, store=tmp_path / "file" / "engines")
    with pytest.raises(EngineStoreError, match="file/engines"):
        provision(msgspec.structs.replace(plan, flight=flight), progress=Progress())


def test_provisioners_at_once_agree_on_one_generation(plan: FlightPlan) -> None:
    with ThreadPoolExecutor(3) as pool:
        generations = list(pool.map(lambda _: provision(plan, progress=Progress()), range(3)))
    assert generations[0] == generations[1] == generations[2]
    assert EngineStore(plan.flight.store).numbers() == [1]


def test_an_aircraft_without_its_sources_takes_the_engines_own_record(plan: FlightPlan, first: Generation) -> None:
    for model in plan.models.values():
        model.source.unlink()
    assert outdated_models(plan, first) == {}


READ_ONLY = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2].split(":")
from messages import EngineStoreError
from runtimes.store.engine_store import EngineStore
from runtimes.store.staged_generation import stage_generation
store = EngineStore(Path(sys.argv[1]))
assert len(store.current().entries) == 2
try:
    with stage_generation(store):
        pass
except EngineStoreError as error:
    print(error)
"""


@pytest.mark.usefixtures("first")
def test_a_store_on_a_read_only_disk_flies_and_is_not_provisioned(plan: FlightPlan) -> None:
    mount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99; shift; exec "$@"'
    arguments = [sys.executable, "-c", READ_ONLY, str(plan.flight.store), ":".join(filter(None, sys.path))]
    try:
        done = subprocess.run(  # noqa: S603
            ["/usr/bin/unshare", "-m", "/bin/bash", "-c", mount, "bash", str(plan.flight.store), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=dict(os.environ),
        )
    except OSError:
        pytest.skip("no unshare on this machine")
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("this user may not mount")
    assert done.returncode == 0, done.stderr
    assert "Read-only file system" in done.stdout


def test_the_committed_engine_is_the_one_that_a_runtime_reads(first: Generation) -> None:
    entry = first.entries["vpr"]
    assert len(read_engine(entry, runtime_label="onnx_trt_ep[cpu]", host=entry.host)) == entry.engine_size_bytes


@pytest.mark.torch
def test_an_exported_torch_program_is_provisioned_once(
    tmp_path: Path, descriptor_pt2: Path, progress: Progress
) -> None:
    plan = FlightPlan(
        flight=FlightSection(name="survey", store=tmp_path / "engines"),
        runtime=C7InferenceConfig(runtime="pytorch_fp16"),
        models={
            "vpr": ModelSection(
                source=descriptor_pt2,
                deadline_ms=100,
                profiles={
                    "image": ProfileSection(min=(1, 3, 8, 8), opt=(1, 3, 8, 8), max=(4, 3, 8, 8)),
                    "bias_by_image": ProfileSection(min=(1, 4), opt=(1, 4), max=(4, 4)),
                },
            )
        },
    )
    generation = provision(plan, progress=Progress())
    assert provision(plan, progress=progress) == generation
    assert progress.decisions() == {"vpr": ("reuse", "unchanged")}
    runtime = build_inference_runtime(plan.runtime)
    handle = deserialize_cached_engine(runtime, generation.entries["vpr"])
    assert handle.entry.source_name == descriptor_pt2.name
    runtime.release_engine(handle)
