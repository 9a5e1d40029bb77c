"""What a run leaves for the next one: finished engines, calibration caches, timings; and what it refuses of them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import pytest

from messages import EngineBuildError, EngineStoreError, OutOfMemoryError, RuntimeNotAvailableError, TensorSpec
from runtimes.fake_runtime import FAKE_HOST
from runtimes.flight_plan import FlightPlan, ModelSection
from runtimes.measurements import PowerMode
from runtimes.provisioning.build_request import BuildEngine, EngineBuilt
from runtimes.provisioning.fake_builder import FakeBuilder
from runtimes.provisioning.progress import ProvisionProgress, Step
from runtimes.provisioning.provision import provision
from runtimes.store.engine_artifact import calibration_path, read_calibration
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.staged_generation import stage_generation
from runtimes.store.storage_budget import stored_bytes
from runtimes.store.timing_cache import TimingCache
from runtimes.takeoff_load import outdated_models

MAXN = PowerMode(name="MAXN", cpu_max_mhz=2201, gpu_max_mhz=1300)
LOW = PowerMode(name="15W", cpu_max_mhz=1510, gpu_max_mhz=612)


def decisions(told: list[ProvisionProgress]) -> dict[str, tuple[str, str]]:
    return {each.model: (each.decision, each.reason) for each in told if each.step == "decided"}


def reasons(told: list[ProvisionProgress], step: Step) -> list[str]:
    return [each.reason for each in told if each.step == step]


def run(
    plan: FlightPlan, builder: FakeBuilder, *, power: PowerMode | None = None
) -> tuple[Generation, list[ProvisionProgress]]:
    told: list[ProvisionProgress] = []
    return provision(plan, progress=told.append, builder=builder, detect_power=lambda: power), told


def retrain(plan: FlightPlan, model: str, text: str) -> None:
    plan.models[model].source.write_bytes(text.encode())


def with_model(plan: FlightPlan, name: str, **changes: object) -> FlightPlan:
    section: ModelSection = msgspec.structs.replace(plan.models[name], **changes)
    return msgspec.structs.replace(plan, models={**plan.models, name: section})


def with_flight(plan: FlightPlan, **changes: object) -> FlightPlan:
    return msgspec.structs.replace(plan, flight=msgspec.structs.replace(plan.flight, **changes))


def save_samples(folder: Path, seed: int) -> Path:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(seed)
    for index in range(3):
        np.savez(folder / f"{index}.npz", x=random.normal(size=4).astype(np.float32))
    return folder


@pytest.fixture
def int8_builder() -> FakeBuilder:
    return FakeBuilder(inputs={"x": TensorSpec((4,), "float32")})


@pytest.fixture
def int8_plan(fake_plan: FlightPlan, tmp_path: Path) -> FlightPlan:
    dataset = save_samples(tmp_path / "dataset", seed=1)
    return with_model(fake_plan, "vpr", precision="int8", calibration_dataset=dataset)


def test_a_run_that_is_killed_after_a_build_leaves_it_to_the_next_run(
    fake_plan: FlightPlan, fake_builder: FakeBuilder
) -> None:
    fake_builder.faults["matcher"] = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        run(fake_plan, fake_builder)
    assert EngineStore(fake_plan.flight.store).current() is None
    fake_builder.faults.clear()
    generation, told = run(fake_plan, fake_builder)
    assert decisions(told) == {
        "vpr": ("reuse", "finished by an interrupted run"),
        "matcher": ("compile", "no engine yet"),
    }
    assert [request.model for request in fake_builder.requests] == ["vpr", "matcher", "matcher"]
    assert set(generation.entries) == {"vpr", "matcher"}


def test_a_run_that_had_to_wait_asks_for_what_the_plan_means_by_then(
    fake_plan: FlightPlan, fake_builder: FakeBuilder
) -> None:
    with ExitStack() as other:
        other.enter_context(stage_generation(EngineStore(fake_plan.flight.store)))

        def tell(progress: ProvisionProgress) -> None:
            if progress.step == "waiting":
                retrain(fake_plan, "vpr", "trained twice")
                other.close()

        generation = provision(fake_plan, progress=tell, builder=fake_builder)
    assert generation.entries["vpr"].source_sha256 == sha256_of(b"trained twice")


def test_a_draft_of_another_source_is_no_draft_of_this_one(fake_plan: FlightPlan, fake_builder: FakeBuilder) -> None:
    fake_builder.faults["matcher"] = EngineBuildError("it does not compile")
    with pytest.raises(EngineBuildError):
        run(fake_plan, fake_builder)
    fake_builder.faults.clear()
    retrain(fake_plan, "vpr", "trained twice")
    _, told = run(fake_plan, fake_builder)
    assert decisions(told)["vpr"][1].startswith("source changed: engine from sha256")


def test_a_failed_build_leaves_the_others_to_be_built_and_all_failures_are_said(
    fake_plan: FlightPlan, fake_builder: FakeBuilder
) -> None:
    fake_builder.faults["vpr"] = OutOfMemoryError("killed by SIGKILL")
    told: list[ProvisionProgress] = []
    with pytest.raises(OutOfMemoryError, match=r"^vpr was not compiled \(0 s\): killed by SIGKILL; .*run: matcher$"):
        provision(fake_plan, progress=told.append, builder=fake_builder)
    assert [each.step for each in told] == ["decided", "decided", "compiling", "failed", "compiling", "ready"]
    assert reasons(told, "failed") == ["vpr was not compiled (0 s): killed by SIGKILL"]
    fake_builder.faults["matcher"] = EngineBuildError("no such operator")
    retrain(fake_plan, "matcher", "trained twice")
    with pytest.raises(OutOfMemoryError, match=r"vpr was not compiled.*; matcher was not compiled.*no such operator"):
        run(fake_plan, fake_builder)


def test_a_store_that_is_full_ends_the_run_at_once(fake_plan: FlightPlan, fake_builder: FakeBuilder) -> None:
    fake_builder.faults["vpr"] = EngineStoreError("no space left")
    with pytest.raises(EngineStoreError, match="no space left"):
        run(fake_plan, fake_builder)
    assert [request.model for request in fake_builder.requests] == ["vpr"]


def test_an_engine_of_an_older_generation_is_taken_again(fake_plan: FlightPlan, fake_builder: FakeBuilder) -> None:
    first, _ = run(fake_plan, fake_builder)
    source = fake_plan.models["vpr"].source
    trained_once = source.read_bytes()
    retrain(fake_plan, "vpr", "trained twice")
    run(fake_plan, fake_builder)
    source.write_bytes(trained_once)
    third, told = run(fake_plan, fake_builder)
    assert decisions(told) == {"vpr": ("reuse", "unchanged since generation 1"), "matcher": ("reuse", "unchanged")}
    assert third.number == 3
    assert third.entries["vpr"].path.samefile(first.entries["vpr"].path)


@pytest.mark.parametrize(
    "name", ["manifest.json", "vpr__sm0_jp0_trt0_fp16.engine", "vpr__sm0_jp0_trt0_fp16.engine.json"]
)
def test_an_older_generation_that_is_damaged_offers_nothing(
    fake_plan: FlightPlan, fake_builder: FakeBuilder, name: str
) -> None:
    first, _ = run(fake_plan, fake_builder)
    retrain(fake_plan, "vpr", "trained twice")
    run(fake_plan, fake_builder)
    path = first.path / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    retrain(fake_plan, "vpr", "vpr, trained once")
    third, told = run(fake_plan, fake_builder)
    assert decisions(told)["vpr"][0] == "compile"
    assert (third.number, third.damaged) == (3, {})


def test_a_damaged_engine_is_replaced_from_an_older_generation_that_has_another_copy(
    fake_plan: FlightPlan, fake_builder: FakeBuilder
) -> None:
    first, _ = run(fake_plan, fake_builder)
    retrain(fake_plan, "matcher", "trained twice")
    second, _ = run(fake_plan, fake_builder)
    engine = second.entries["vpr"].path
    damaged = bytearray(engine.read_bytes())
    damaged[3] ^= 1
    engine.unlink()  # the older generation keeps the whole one
    engine.write_bytes(damaged)
    third, told = run(fake_plan, fake_builder)
    decision, reason = decisions(told)["vpr"]
    assert decision == "reuse"
    assert reason.startswith(f"unchanged since generation 1; engine not usable: {engine}: content altered")
    assert third.entries["vpr"].path.samefile(first.entries["vpr"].path)


@pytest.mark.parametrize("suffix", [".selftest.npz", ".calibration"])
def test_an_engine_is_used_again_only_with_all_that_belongs_to_it(
    int8_plan: FlightPlan, int8_builder: FakeBuilder, suffix: str
) -> None:
    first, _ = run(int8_plan, int8_builder)
    path = Path(f"{first.entries['vpr'].path}{suffix}")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    _, told = run(int8_plan, int8_builder)
    assert decisions(told)["vpr"][0] == "compile"
    assert path.name in decisions(told)["vpr"][1]


def test_a_build_that_made_another_engine_than_asked_for_is_refused(fake_plan: FlightPlan) -> None:
    class Careless(FakeBuilder):
        def build(self, request: BuildEngine, **others: object) -> EngineBuilt:
            config = msgspec.structs.replace(request.build_config, workspace_mb=1)
            return super().build(msgspec.structs.replace(request, build_config=config), **others)  # type: ignore[arg-type]

    with pytest.raises(EngineBuildError, match=r"another engine than the one asked for: workspace_mb: engine 1, plan"):
        run(fake_plan, Careless())
    assert EngineStore(fake_plan.flight.store).current() is None


def test_an_engine_that_was_timed_in_another_power_mode_is_built_again_and_does_not_take_off(
    fake_plan: FlightPlan,
) -> None:
    first, _ = run(fake_plan, FakeBuilder(power=MAXN), power=MAXN)
    refused = outdated_models(fake_plan, first, detect_power=lambda: LOW)
    both = "power mode: engine MAXN (CPU 2201 MHz, GPU 1300 MHz), board 15W (CPU 1510 MHz, GPU 612 MHz)"
    assert refused["vpr"].startswith(both)
    assert "nvpmodel -m" in refused["vpr"]
    assert "allow_other_power_mode = true" in refused["vpr"]
    allowing = with_flight(fake_plan, allow_other_power_mode=True)
    assert outdated_models(allowing, first, detect_power=lambda: LOW) == {}
    assert outdated_models(fake_plan, first, detect_power=lambda: MAXN) == {}
    _, told = run(fake_plan, FakeBuilder(power=LOW), power=LOW)
    assert decisions(told)["vpr"] == ("compile", both)


def test_a_power_mode_that_cannot_be_read_is_refused_before_anything_is_compiled(fake_plan: FlightPlan) -> None:
    """The sign-off of each build records it, whether or not the plan lets another mode fly."""

    def unreadable() -> PowerMode:
        raise RuntimeNotAvailableError("/var/lib/nvpmodel/status: expected the power mode")

    for allowed in (False, True):
        builder = FakeBuilder()
        with pytest.raises(RuntimeNotAvailableError, match="nvpmodel/status"):
            provision(
                with_flight(fake_plan, allow_other_power_mode=allowed),
                progress=lambda _: None,
                builder=builder,
                detect_power=unreadable,
            )
        assert builder.requests == ()


def test_a_tolerance_below_the_recorded_error_is_built_again_and_does_not_take_off(fake_plan: FlightPlan) -> None:
    first, _ = run(fake_plan, FakeBuilder(error=0.02))
    strict = with_model(fake_plan, "vpr", accuracy_tolerance=0.01)
    expected = "accuracy: engine error 0.02, plan tolerates 0.01"
    assert outdated_models(strict, first) == {"vpr": expected}
    _, told = run(strict, FakeBuilder(error=0.001))
    assert decisions(told) == {"vpr": ("compile", expected), "matcher": ("reuse", "unchanged")}


def test_other_samples_are_built_with_again_and_do_not_take_off(
    fake_plan: FlightPlan, fake_builder: FakeBuilder, tmp_path: Path
) -> None:
    plan = with_model(fake_plan, "vpr", samples=save_samples(tmp_path / "samples", seed=1))
    first, _ = run(plan, fake_builder)
    assert outdated_models(plan, first) == {}
    save_samples(tmp_path / "samples", seed=2)
    assert outdated_models(plan, first)["vpr"].startswith("samples: engine sha256")
    _, told = run(plan, fake_builder)
    assert decisions(told)["vpr"][1].startswith("samples: engine sha256")


def test_a_former_calibration_cache_is_taken_where_it_can_be_trusted(
    int8_plan: FlightPlan, int8_builder: FakeBuilder
) -> None:
    first, _ = run(int8_plan, int8_builder)
    second, told = run(with_model(int8_plan, "vpr", workspace_mb=7), int8_builder)
    assert reasons(told, "calibration_cache_refused") == []
    assert int8_builder.requests[-1].calibration_cache is not None
    assert read_calibration(second.entries["vpr"]) == read_calibration(first.entries["vpr"])


def test_a_calibration_cache_of_another_dataset_is_refused_aloud_and_the_model_calibrated_anew(
    int8_plan: FlightPlan, int8_builder: FakeBuilder, tmp_path: Path
) -> None:
    first, _ = run(int8_plan, int8_builder)
    save_samples(tmp_path / "dataset", seed=2)
    second, told = run(int8_plan, int8_builder)
    assert decisions(told)["vpr"][1].startswith("calibration data: engine sha256")
    (refusal,) = reasons(told, "calibration_cache_refused")
    assert "dataset_sha256: expected" in refusal
    assert [request.calibration_cache is None for request in int8_builder.requests if request.model == "vpr"] == [
        True,
        False,
        True,
    ]
    assert read_calibration(second.entries["vpr"]) != read_calibration(first.entries["vpr"])


def test_a_damaged_calibration_cache_is_not_offered(int8_plan: FlightPlan, int8_builder: FakeBuilder) -> None:
    first, _ = run(int8_plan, int8_builder)
    path = calibration_path(first.entries["vpr"].path)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    _, told = run(int8_plan, int8_builder)
    (refusal,) = reasons(told, "calibration_cache_refused")
    assert path.name in refusal
    assert int8_builder.requests[-1].calibration_cache is None


class Timing(FakeBuilder):
    """Adds a line to its timings at each build, as a compiler does."""

    def build(self, request: BuildEngine, **others: object) -> EngineBuilt:
        assert request.timing_cache is not None
        with (request.timing_cache / "gemm.timing").open("ab") as file:
            file.write(f"{request.model}\n".encode())
        return super().build(request, **others)  # type: ignore[arg-type]


def test_timings_of_one_build_are_there_for_the_next_one(fake_plan: FlightPlan) -> None:
    run(fake_plan, Timing())
    retrain(fake_plan, "vpr", "trained twice")
    run(fake_plan, Timing())
    kept = TimingCache(fake_plan.flight.store, "fake", FAKE_HOST).folder / "gemm.timing"
    assert kept.read_text() == "vpr\nmatcher\nvpr\n"


def test_damaged_timings_are_dropped_with_a_reason_and_the_build_goes_on(fake_plan: FlightPlan) -> None:
    run(fake_plan, Timing())
    kept = TimingCache(fake_plan.flight.store, "fake", FAKE_HOST).folder / "gemm.timing"
    kept.write_text("other timings\n")
    retrain(fake_plan, "vpr", "trained twice")
    _, told = run(fake_plan, Timing())
    (reason,) = reasons(told, "timing_cache_dropped")
    assert f"{kept}: content altered" in reason
    assert kept.read_text() == "vpr\n"


def test_timings_of_a_failed_build_are_not_kept(fake_plan: FlightPlan) -> None:
    builder = Timing()
    builder.faults["vpr"] = EngineBuildError("no such operator")
    with pytest.raises(EngineBuildError):
        run(fake_plan, builder)
    kept = TimingCache(fake_plan.flight.store, "fake", FAKE_HOST).folder / "gemm.timing"
    assert kept.read_text() == "matcher\n"


def test_a_budget_that_is_used_up_is_said_before_anything_is_built(
    fake_plan: FlightPlan, fake_builder: FakeBuilder
) -> None:
    run(fake_plan, fake_builder)
    (fake_plan.flight.store / "gen-000001" / "forgotten").write_bytes(bytes(1024 * 1024))
    retrain(fake_plan, "vpr", "trained twice")
    with pytest.raises(EngineStoreError, match=r"budget is used up: \d+ bytes are stored, 1 MiB are allowed; .*prune"):
        run(with_flight(fake_plan, storage_budget_mb=1), fake_builder)
    assert len(fake_builder.requests) == 2


def test_each_build_gets_what_the_budget_has_left(fake_plan: FlightPlan, fake_builder: FakeBuilder) -> None:
    run(fake_plan, fake_builder)
    rooms = [request.room_bytes for request in fake_builder.requests]
    assert rooms[0] == 1500 * 1024 * 1024
    assert rooms[1] is not None
    assert 0 < rooms[0] - rooms[1] < stored_bytes(fake_plan.flight.store)


def test_nothing_of_an_interrupted_run_outlasts_the_next_one(fake_plan: FlightPlan, fake_builder: FakeBuilder) -> None:
    run(fake_plan, fake_builder)
    retrain(fake_plan, "vpr", "trained twice")
    fake_builder.faults["matcher"] = EngineBuildError("no such operator")
    with pytest.raises(EngineBuildError):
        run(with_model(fake_plan, "matcher", workspace_mb=7), fake_builder)
    assert (fake_plan.flight.store / ".drafts").exists()
    retrain(fake_plan, "vpr", "vpr, trained once")
    run(fake_plan, fake_builder)
    assert sorted(path.name for path in fake_plan.flight.store.iterdir()) == [".lock", "current", "gen-000001"]
