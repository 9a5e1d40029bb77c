"""INT8 through provisioning: a former calibration is used where it fits, and refused aloud and made anew where not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from messages import EngineBuildError, Tensor, TensorSpec
from runtimes.config import C7InferenceConfig
from runtimes.fake_runtime import FakeRuntime
from runtimes.fake_steps import computes
from runtimes.flight_plan import FlightPlan, FlightSection, ModelSection, ProfileSection
from runtimes.npz_file import encode_npz
from runtimes.provisioning.build_child import Heartbeat
from runtimes.provisioning.build_request import BuildEngine, EngineBuilt, RuntimeProbed
from runtimes.provisioning.provision import ProvisionProgress, provision
from runtimes.provisioning.signed_off_build import build_signed_off, compile_folder
from runtimes.samples import Samples
from runtimes.store.engine_artifact import verify_artifact
from runtimes.store.engine_store import EngineStore, Generation

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

INPUTS = {"vpr": {"x": TensorSpec((-1, 4), "float32")}}


def save_source(path: Path, factor: float) -> Path:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    factors = onnx.numpy_helper.from_array(np.full(4, factor, np.float32), "factors")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factors"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", kind, ["n", 4])],
        [helper.make_tensor_value_info("y", kind, ["n", 4])],
        [factors],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def write_batch(path: Path, value: float) -> None:
    path.write_bytes(encode_npz({"x": np.full((2, 4), value, np.float32)}))


class FakeBuilder:
    """Signs engines of a fake runtime off in this process; it computes what the source says."""

    def __init__(self, factor: float = 2) -> None:
        self.batches: list[int] = []
        self.factor = factor

    def probe(self, config: C7InferenceConfig) -> RuntimeProbed:
        fake = self._fake(None)
        return RuntimeProbed(fake.current_runtime_label(), fake.entry("vpr").host)

    def build(self, request: BuildEngine, *, timeout_s: float, heartbeat: Heartbeat) -> EngineBuilt:
        fake = self._fake(compile_folder(request))
        try:
            return build_signed_off(request, fake, fake.entry("vpr").host)
        finally:
            self.batches.append(fake.calibration_batches("vpr"))

    def _fake(self, engine_dir: Path | None) -> FakeRuntime:
        def compute(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            return {"y": np.asarray(inputs["x"]) * np.float32(self.factor)}

        return FakeRuntime({"vpr": computes(compute)}, inputs=INPUTS, engine_dir=engine_dir)


@pytest.fixture
def plan(tmp_path: Path) -> FlightPlan:
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    write_batch(dataset / "0.npz", 1)
    write_batch(dataset / "1.npz", 12.7)
    model = ModelSection(
        source=save_source(tmp_path / "ultravpr.onnx", 2),
        precision="int8",
        calibration_dataset=dataset,
        deadline_ms=100,
        profiles={"x": ProfileSection(min=(1, 4), opt=(2, 4), max=(4, 4))},
    )
    return FlightPlan(
        flight=FlightSection(name="survey", store=tmp_path / "engines"),
        runtime=C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"),
        models={"vpr": model},
    )


def changed(plan: FlightPlan, **changes: object) -> FlightPlan:
    return msgspec.structs.replace(plan, models={"vpr": msgspec.structs.replace(plan.models["vpr"], **changes)})


def dataset_of(plan: FlightPlan) -> Path:
    path = plan.models["vpr"].calibration_dataset
    assert path is not None
    return path


def run(plan: FlightPlan, builder: FakeBuilder) -> tuple[Generation, list[ProvisionProgress]]:
    told: list[ProvisionProgress] = []
    return provision(plan, progress=told.append, builder=builder), told


def reasons(told: list[ProvisionProgress], step: str) -> list[str]:
    return [each.reason for each in told if each.step == step]


def test_an_int8_engine_is_calibrated_once_and_then_taken_again(plan: FlightPlan) -> None:
    builder = FakeBuilder()
    first, _ = run(plan, builder)
    entry = first.entries["vpr"]
    verify_artifact(entry)
    assert entry.dataset_sha256 == Samples.open(dataset_of(plan)).sha256
    assert entry.calibration_sha256 is not None
    again, told = run(plan, builder)
    assert again == first
    assert told[-1].step == "up_to_date"
    assert builder.batches == [2]


def test_a_dataset_that_was_moved_is_the_same_dataset(plan: FlightPlan, tmp_path: Path) -> None:
    builder = FakeBuilder()
    first, _ = run(plan, builder)
    moved = dataset_of(plan).rename(tmp_path / "elsewhere")
    again, _ = run(changed(plan, calibration_dataset=moved), builder)
    assert again.entries["vpr"].calibration_sha256 == first.entries["vpr"].calibration_sha256
    assert builder.batches == [2]


def test_another_workspace_is_compiled_again_with_the_former_calibration(plan: FlightPlan) -> None:
    builder = FakeBuilder()
    first, _ = run(plan, builder)
    second, told = run(changed(plan, workspace_mb=7), builder)
    assert second.number == 2
    assert second.entries["vpr"].calibration_sha256 == first.entries["vpr"].calibration_sha256
    assert reasons(told, "calibration_cache_refused") == []
    assert builder.batches == [2, 0]


def test_another_dataset_is_told_with_both_hashes_and_calibrated_anew(plan: FlightPlan) -> None:
    builder = FakeBuilder()
    first, _ = run(plan, builder)
    write_batch(dataset_of(plan) / "1.npz", 25.4)
    second, told = run(plan, builder)
    former, now = first.entries["vpr"], second.entries["vpr"]
    (refused,) = reasons(told, "calibration_cache_refused")
    assert f"dataset_sha256: expected {now.dataset_sha256}, found {former.dataset_sha256}" in refused
    assert now.calibration_sha256 != former.calibration_sha256
    assert builder.batches == [2, 0, 2]
    verify_artifact(now)


def test_retrained_weights_are_told_and_calibrated_anew(plan: FlightPlan) -> None:
    builder = FakeBuilder()
    first, _ = run(plan, builder)
    save_source(plan.models["vpr"].source, 3)
    builder.factor = 3
    second, told = run(plan, builder)
    former, now = first.entries["vpr"], second.entries["vpr"]
    (refused,) = reasons(told, "calibration_cache_refused")
    assert f"source_sha256: expected {now.source_sha256}, found {former.source_sha256}" in refused
    assert builder.batches == [2, 0, 2]


def test_a_dataset_that_cannot_be_used_leaves_the_former_generation_current(plan: FlightPlan) -> None:
    builder = FakeBuilder()
    first, _ = run(plan, builder)
    write_batch(dataset_of(plan) / "1.npz", np.nan)
    with pytest.raises(EngineBuildError, match=r"1\.npz: input x: expected finite values, found nan"):
        run(plan, builder)
    assert EngineStore(plan.flight.store).current() == first
