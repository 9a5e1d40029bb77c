"""Reuse or compile: a pure decision whose every answer has its reason."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.flight_plan import ModelSection
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry, HostTuple
from runtimes.measurements import AccuracyRecord, MemoryUse, OutputError, PowerMode
from runtimes.provisioning.decision import (
    Candidate,
    Compile,
    EngineRequest,
    Reuse,
    decide,
    differences,
    power_difference,
)

LABEL = "onnx_trt_ep[cpu]"
HOST = HostTuple(
    sm=87,
    sm_count=8,
    device_name="Orin",
    jetpack="6.2",
    l4t="36.4.3",
    tensorrt="10.3.0.30",
    cuda="12.6",
    machine="aarch64",
    runtime_version="1.31.1",
)
CONFIG = BuildConfig(
    precision="int8",
    calibration_dataset=Path("/data/set"),
    optimization_profiles=(("image", (1, 3), (2, 3), (4, 3)),),
)
POWER = PowerMode(name="MAXN", cpu_max_mhz=2201, gpu_max_mhz=1300)
REQUEST = EngineRequest(
    model="vpr",
    source=Path("/models/vpr.onnx"),
    source_sha256="a" * 64,
    build_config=CONFIG,
    dataset_sha256="d" * 64,
    samples_sha256="5" * 64,
    accuracy_tolerance=0.01,
    power=POWER,
)
ACCURACY = AccuracyRecord(
    reference="onnxruntime 1.31.1 on the CPU",
    samples_sha256="5" * 64,
    sample_count=3,
    outputs={"descriptor": OutputError(relative_rms=0.01, max_abs=0.2)},
)
ENTRY = EngineCacheEntry(
    model="vpr",
    path=Path("/store/gen-000001/vpr__sm87_jp6.2_trt10.3_int8.engine"),
    engine_sha256="e" * 64,
    engine_size_bytes=10,
    source_name="vpr.onnx",
    source_sha256="a" * 64,
    runtime_label=LABEL,
    build_config=CONFIG,
    host=HOST,
    inputs={},
    outputs={},
    build_tool="onnxruntime 1.31.1",
    build_ns=1,
    dataset_sha256="d" * 64,
    calibration_sha256="c" * 64,
    self_test_sha256="f" * 64,
    power=POWER,
    memory=MemoryUse(load_bytes=10, run_bytes=10),
    accuracy=ACCURACY,
)


class Case(NamedTuple):
    """What a decision is made from."""

    request: EngineRequest = REQUEST
    entry: EngineCacheEntry = ENTRY
    host: HostTuple = HOST
    label: str = LABEL

    def differences(self) -> list[str]:
        return differences(self.request, self.entry, self.host, self.label)


class Change(NamedTuple):
    """One way in which the engine is not the one that is asked for, and the line that says so."""

    subject: str
    part: str
    values: dict[str, Any]
    line: str

    def of(self, case: Case) -> Case:
        if self.part == "label":
            return case._replace(label=self.values["label"])
        if self.part == "build_config":
            config = msgspec.structs.replace(case.request.build_config, **self.values)
            return case._replace(request=msgspec.structs.replace(case.request, build_config=config))
        return case._replace(**{self.part: msgspec.structs.replace(getattr(case, self.part), **self.values)})


def host_change(field: str) -> Change:
    was = getattr(HOST, field)
    now = was + 1 if isinstance(was, int) else f"{was}.9"
    return Change(f"host.{field}", "host", {field: now}, f"host: {field}: engine {was}, host {now}")


def power_change(field: str, value: object, shown: str) -> Change:
    line = f"power mode: engine MAXN (CPU 2201 MHz, GPU 1300 MHz), board {shown}"
    return Change("power", "request", {"power": msgspec.structs.replace(POWER, **{field: value})}, line)


CHANGES = [
    *(host_change(field) for field in HostTuple.__struct_fields__),
    Change("label", "label", {"label": "tensorrt"}, "runtime: engine onnx_trt_ep[cpu], configured tensorrt"),
    Change("optimization_level", "request", {"optimization_level": 5}, "optimization_level: engine None, plan 5"),
    Change(
        "source_sha256",
        "request",
        {"source_sha256": "b" * 64},
        "source changed: engine from sha256 aaaaaaaaaaaa, now bbbbbbbbbbbb",
    ),
    Change("build_config.precision", "build_config", {"precision": "fp16"}, "precision: engine int8, plan fp16"),
    Change("build_config.workspace_mb", "build_config", {"workspace_mb": 2048}, "workspace_mb: engine 1024, plan 2048"),
    Change(
        "build_config.optimization_profiles",
        "build_config",
        {"optimization_profiles": (("image", (1, 3), (2, 3), (8, 3)),)},
        "optimization_profiles: engine image 1x3 / 2x3 / 4x3, plan image 1x3 / 2x3 / 8x3",
    ),
    Change(
        "build_config.optimization_profiles",
        "build_config",
        {"optimization_profiles": ()},
        "optimization_profiles: engine image 1x3 / 2x3 / 4x3, plan none",
    ),
    Change(
        "dataset_sha256",
        "request",
        {"dataset_sha256": "9" * 64},
        "calibration data: engine sha256 dddddddddddd, now sha256 999999999999",
    ),
    Change(
        "dataset_sha256",
        "entry",
        {"dataset_sha256": None},
        "calibration data: engine none, now sha256 dddddddddddd",
    ),
    Change(
        "samples_sha256",
        "request",
        {"samples_sha256": "8" * 64},
        "samples: engine sha256 555555555555, now sha256 888888888888",
    ),
    Change("samples_sha256", "request", {"samples_sha256": None}, "samples: engine sha256 555555555555, now none"),
    Change(
        "accuracy_tolerance",
        "request",
        {"accuracy_tolerance": 0.0099},
        "accuracy: engine error 0.01, plan tolerates 0.0099",
    ),
    Change("memory", "entry", {"memory": None}, "not signed off: the engine has no memory record"),
    Change("self_test", "entry", {"self_test_sha256": None}, "not signed off: the engine has no known answers"),
    power_change("name", "15W", "15W (CPU 2201 MHz, GPU 1300 MHz)"),
    power_change("cpu_max_mhz", 1510, "MAXN (CPU 1510 MHz, GPU 1300 MHz)"),
    power_change("gpu_max_mhz", 612, "MAXN (CPU 2201 MHz, GPU 612 MHz)"),
    Change("power", "request", {"power": None}, "power mode: engine MAXN (CPU 2201 MHz, GPU 1300 MHz), board none"),
    Change("power", "entry", {"power": None}, "power mode: engine none, board MAXN (CPU 2201 MHz, GPU 1300 MHz)"),
]
PAIRS = [(one, other) for one, other in combinations(CHANGES, 2) if one.subject != other.subject]
AGAIN = Candidate(ENTRY, "unchanged")


def test_an_engine_that_fits_is_used_again() -> None:
    assert Case().differences() == []
    assert decide(REQUEST, [AGAIN], HOST, LABEL) == Reuse(ENTRY, "unchanged")


def test_a_model_that_the_store_does_not_have_is_compiled() -> None:
    assert decide(REQUEST, [], HOST, LABEL) == Compile("no engine yet")


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change.part}-{change.subject}")
def test_each_single_difference_is_compiled_and_said(change: Change) -> None:
    case = change.of(Case())
    assert case.differences() == [change.line]
    assert decide(case.request, [Candidate(case.entry, "unchanged")], case.host, case.label) == Compile(change.line)


def test_each_pair_of_differences_is_compiled_and_both_are_said() -> None:
    assert len(PAIRS) > 250
    for one, other in PAIRS:
        case = one.of(other.of(Case()))
        assert sorted(case.differences()) == sorted([one.line, other.line])


def test_no_field_of_host_request_and_build_configuration_is_forgotten() -> None:
    subjects = {change.subject for change in CHANGES}
    identity = {"model", "source", "build_config", "any_power_mode"}
    assert subjects >= {f"host.{field}" for field in HostTuple.__struct_fields__}
    assert subjects >= set(EngineRequest.__struct_fields__) - identity
    # The dataset is known by its content, not by where it lies.
    fields = set(BuildConfig.__struct_fields__) - {"calibration_dataset"}
    assert subjects >= {f"build_config.{field}" for field in fields}


NOT_COMPARED = {
    "model": "candidates are looked up by it, and a build's engine is checked against it",
    "path": "a file's name decides nothing",
    "source_name": "a file's name decides nothing",
    "engine_sha256": "what a build yields; hashed before it is used",
    "engine_size_bytes": "what a build yields",
    "inputs": "what the source says, whose hash is compared",
    "outputs": "what the source says, whose hash is compared",
    "build_tool": "the runtime's library, whose version is in the host tuple",
    "build_ns": "a duration",
    "calibration_sha256": "made from the dataset and the source, whose hashes are compared",
    "timing_cache_sha256": "made by the builds before it on this host",
}
"""Fields of an engine that keep none from being used again, and why."""
NOT_OF_THE_ENGINE = {
    "source": "its hash is compared",
    "calibration_dataset": "its hash is compared",
    "samples": "their hash is compared",
    "priority": "of the flight",
    "deadline_ms": "of the flight, and of its preflight",
    "calls_per_frame": "of the preflight",
    "consumers": "of the flight",
    "self_test_tolerance": "judges a load",
}
"""Keys of a model in a flight plan that no engine is built from, and why."""


def test_no_field_of_an_engine_is_left_out_of_the_comparison_unsaid() -> None:
    compared = {"host", "runtime_label", "source_sha256", "build_config", "dataset_sha256", "build"}
    signed_off = {"self_test_sha256", "power", "memory", "accuracy"}
    assert compared | signed_off | NOT_COMPARED.keys() == set(EngineCacheEntry.__struct_fields__)


def test_no_key_of_a_model_in_the_plan_is_left_out_of_the_comparison_unsaid() -> None:
    compared = {"precision", "workspace_mb", "profiles", "accuracy_tolerance"}
    assert compared | NOT_OF_THE_ENGINE.keys() == set(ModelSection.__struct_fields__)


def test_a_source_and_a_dataset_that_only_moved_are_used_again() -> None:
    config = msgspec.structs.replace(CONFIG, calibration_dataset=Path("/elsewhere"))
    request = msgspec.structs.replace(REQUEST, source=Path("/elsewhere/v3.onnx"), build_config=config)
    assert decide(request, [AGAIN], HOST, LABEL) == Reuse(ENTRY, "unchanged")


def test_a_plan_that_allows_it_flies_in_another_power_mode() -> None:
    request = msgspec.structs.replace(REQUEST, power=None, any_power_mode=True)
    assert power_difference(request, ENTRY) == ""
    assert isinstance(decide(request, [AGAIN], HOST, LABEL), Reuse)


def test_an_error_that_is_exactly_tolerated_is_used_again() -> None:
    request = msgspec.structs.replace(REQUEST, accuracy_tolerance=ACCURACY.worst)
    assert isinstance(decide(request, [AGAIN], HOST, LABEL), Reuse)


def test_a_tolerance_needs_a_measured_error() -> None:
    unmeasured = msgspec.structs.replace(ENTRY, accuracy=None)
    found = differences(REQUEST, unmeasured, HOST, LABEL)
    assert found == ["accuracy: engine not measured, plan tolerates 0.01"]
    assert differences(msgspec.structs.replace(REQUEST, accuracy_tolerance=None), unmeasured, HOST, LABEL) == []


def test_the_first_engine_that_fits_is_taken_and_says_where_it_is_from() -> None:
    retrained = Candidate(msgspec.structs.replace(ENTRY, source_sha256="b" * 64), "unchanged")
    draft = Candidate(msgspec.structs.replace(ENTRY, build_ns=7), "finished by an interrupted run")
    older = Candidate(ENTRY, "unchanged since generation 3")
    assert decide(REQUEST, [retrained, draft, older], HOST, LABEL) == Reuse(draft.entry, draft.origin)
    assert decide(REQUEST, [retrained, older], HOST, LABEL) == Reuse(ENTRY, "unchanged since generation 3")


def test_where_none_fits_the_nearest_one_says_what_differs() -> None:
    nearest = Candidate(msgspec.structs.replace(ENTRY, source_sha256="b" * 64), "unchanged")
    further = Candidate(msgspec.structs.replace(ENTRY, runtime_label="tensorrt"), "unchanged since generation 3")
    decision = decide(REQUEST, [nearest, further], HOST, LABEL)
    assert decision == Compile("source changed: engine from sha256 bbbbbbbbbbbb, now aaaaaaaaaaaa")


def test_damage_is_said_whether_another_engine_takes_the_place_or_none() -> None:
    damage = "vpr.engine: content altered"
    assert decide(REQUEST, [], HOST, LABEL, damage) == Compile("engine not usable: vpr.engine: content altered")
    older = Candidate(ENTRY, "unchanged since generation 3")
    assert decide(REQUEST, [older], HOST, LABEL, damage) == Reuse(
        ENTRY, "unchanged since generation 3; engine not usable: vpr.engine: content altered"
    )
    outdated = Candidate(msgspec.structs.replace(ENTRY, runtime_label="tensorrt"), "unchanged since generation 3")
    assert decide(REQUEST, [outdated], HOST, LABEL, damage) == Compile(f"engine not usable: {damage}")


@given(st.sets(st.sampled_from(range(len(CHANGES)))))
def test_an_engine_is_used_again_only_where_nothing_differs(chosen: set[int]) -> None:
    case = Case()
    for index in chosen:
        case = CHANGES[index].of(case)
    decision = decide(case.request, [Candidate(case.entry, "unchanged")], case.host, case.label)
    assert isinstance(decision, Reuse) == (not case.differences())
    if len({CHANGES[index].subject for index in chosen}) == len(chosen):
        assert isinstance(decision, Reuse) == (not chosen)
