"""What a plan asks for, where all of it lies beside the plan, and where an aircraft lacks what an engine is made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from messages import ConfigError, EngineBuildError, TensorSpec
from runtimes.config import RuntimeName
from runtimes.flight_plan import FlightPlan
from runtimes.provisioning.engine_request import calibration_data, request_at_takeoff, request_for_build
from runtimes.provisioning.fake_builder import FakeBuilder
from runtimes.provisioning.progress import ProvisionProgress
from runtimes.provisioning.provision import provision
from runtimes.store.engine_artifact import metadata_path
from runtimes.store.engine_store import Generation
from runtimes.takeoff_load import outdated_models


@pytest.fixture
def plan(fake_plan: FlightPlan, tmp_path: Path) -> FlightPlan:
    """The first model is calibrated on a dataset, the second one measured on samples."""
    for seed, name in enumerate(("dataset", "samples")):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "0.npz", x=np.random.default_rng(seed).normal(size=4).astype(np.float32))
    vpr = msgspec.structs.replace(fake_plan.models["vpr"], precision="int8", calibration_dataset=tmp_path / "dataset")
    matcher = msgspec.structs.replace(fake_plan.models["matcher"], samples=tmp_path / "samples")
    return msgspec.structs.replace(fake_plan, models={"vpr": vpr, "matcher": matcher})


def provisioned(plan: FlightPlan, told: list[ProvisionProgress] | None = None) -> Generation:
    builder = FakeBuilder(inputs={"x": TensorSpec((4,), "float32")})
    return provision(plan, progress=lambda each: None if told is None else told.append(each), builder=builder)


def alter(path: Path) -> None:
    np.savez(path, x=np.full(4, 9, np.float32))


def test_a_build_is_asked_for_with_the_hashes_of_all_that_goes_into_it(plan: FlightPlan) -> None:
    vpr, matcher = (request_for_build(plan, model, None) for model in ("vpr", "matcher"))
    assert (vpr.dataset_sha256 is None, vpr.samples_sha256 is None) == (False, True)
    assert (matcher.dataset_sha256 is None, matcher.samples_sha256 is None) == (True, False)
    assert vpr.source_sha256 != matcher.source_sha256


def test_a_dataset_that_the_precision_does_not_use_is_not_asked_for(plan: FlightPlan) -> None:
    section = msgspec.structs.replace(plan.models["vpr"], precision="fp16")
    assert request_for_build(msgspec.structs.replace(plan, models={"vpr": section}), "vpr", None).dataset_sha256 is None


@pytest.mark.parametrize(("runtime", "is_used"), [("tensorrt", True), ("onnx_trt_ep", False)])
def test_only_tensorrt_calibrates_a_mixed_model_on_its_dataset(
    plan: FlightPlan, runtime: RuntimeName, is_used: bool
) -> None:
    section = msgspec.structs.replace(plan.models["vpr"], precision="mixed")
    mixed = msgspec.structs.replace(
        plan, models={"vpr": section}, runtime=msgspec.structs.replace(plan.runtime, runtime=runtime)
    )
    assert (calibration_data(mixed, "vpr") is not None) == is_used


def test_data_that_lies_beside_the_plan_is_compared_at_takeoff(plan: FlightPlan, tmp_path: Path) -> None:
    generation = provisioned(plan)
    assert outdated_models(plan, generation) == {}
    alter(tmp_path / "dataset" / "0.npz")
    assert outdated_models(plan, generation)["vpr"].startswith("calibration data: engine sha256")
    alter(tmp_path / "samples" / "0.npz")
    assert outdated_models(plan, generation)["matcher"].startswith("samples: engine sha256")


def test_an_aircraft_without_sources_and_data_takes_the_engines_own_record(plan: FlightPlan, tmp_path: Path) -> None:
    generation = provisioned(plan)
    for name in ("dataset", "samples"):
        shutil.rmtree(tmp_path / name)
    for section in plan.models.values():
        section.source.unlink()
    assert outdated_models(plan, generation) == {}
    request = request_at_takeoff(plan, generation.entries["vpr"], None)
    assert request.dataset_sha256 == generation.entries["vpr"].dataset_sha256 is not None


def test_data_that_is_there_and_cannot_be_read_is_named_by_table_and_key(plan: FlightPlan, tmp_path: Path) -> None:
    generation = provisioned(plan)
    (tmp_path / "samples" / "0.npz").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"^\[models\.matcher\] samples: .*0\.npz: the sample is empty"):
        request_for_build(plan, "matcher", None)
    assert "[models.matcher] samples: " in outdated_models(plan, generation)["matcher"]
    plan.models["vpr"].source.write_bytes(b"")
    with pytest.raises(EngineBuildError, match=r"^\[models\.vpr\] source: .*empty"):
        request_for_build(plan, "vpr", None)
    assert "empty" in outdated_models(plan, generation)["vpr"]


def test_a_damaged_engine_that_the_plan_no_longer_needs_is_left_out_of_the_next_generation(plan: FlightPlan) -> None:
    first = provisioned(plan)
    metadata_path(first.entries["matcher"].path).write_bytes(b"{}")
    without = msgspec.structs.replace(plan, models={"vpr": plan.models["vpr"]})
    told: list[ProvisionProgress] = []
    second = provisioned(without, told)
    assert [each.reason for each in told if each.step == "decided"] == ["unchanged"]
    assert (second.number, set(second.entries), second.damaged) == (2, {"vpr"}, {})
