"""Reuse or compile: a pure decision whose every answer has its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.inference_runtime import BuildConfig, EngineCacheEntry, HostTuple
from runtimes.provisioning.decision import Compile, EngineRequest, Reuse, decide

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
CONFIG = BuildConfig(precision="fp16", optimization_profiles=(("image", (1, 3), (2, 3), (4, 3)),))
REQUEST = EngineRequest(model="vpr", source=Path("/models/vpr.onnx"), source_sha256="a" * 64, build_config=CONFIG)
ENTRY = EngineCacheEntry(
    model="vpr",
    path=Path("/store/gen-000001/vpr__sm87_jp6.2_trt10.3_fp16.engine"),
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
)


def reason_after(request: EngineRequest = REQUEST, host: HostTuple = HOST, label: str = LABEL) -> str:
    decision = decide(request, ENTRY, host, label)
    assert isinstance(decision, Compile)
    return decision.reason


def asked(**changes: Any) -> EngineRequest:
    return msgspec.structs.replace(REQUEST, build_config=msgspec.structs.replace(CONFIG, **changes))


def test_an_engine_that_fits_is_used_again() -> None:
    assert decide(REQUEST, ENTRY, HOST, LABEL) == Reuse(ENTRY, "unchanged")


def test_a_model_that_the_store_does_not_have_is_compiled() -> None:
    assert decide(REQUEST, None, HOST, LABEL) == Compile("no engine yet")


def test_a_damaged_engine_is_compiled_again_with_its_damage_as_the_reason() -> None:
    decision = decide(REQUEST, None, HOST, LABEL, damage="vpr.engine: content altered")
    assert decision == Compile("engine not usable: vpr.engine: content altered")


def test_a_retrained_source_under_the_same_name_is_compiled() -> None:
    request = msgspec.structs.replace(REQUEST, source_sha256="b" * 64)
    assert reason_after(request) == "source changed: engine from sha256 aaaaaaaaaaaa, now bbbbbbbbbbbb"


def test_a_source_that_only_moved_is_used_again() -> None:
    request = msgspec.structs.replace(REQUEST, source=Path("/elsewhere/v3.onnx"))
    assert isinstance(decide(request, ENTRY, HOST, LABEL), Reuse)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"precision": "int8"}, "precision: engine fp16, plan int8"),
        ({"workspace_mb": 2048}, "workspace_mb: engine 1024, plan 2048"),
        ({"calibration_dataset": Path("/set")}, "calibration_dataset: engine None, plan /set"),
        (
            {"optimization_profiles": (("image", (1, 3), (2, 3), (8, 3)),)},
            "optimization_profiles: engine image 1x3 / 2x3 / 4x3, plan image 1x3 / 2x3 / 8x3",
        ),
        ({"optimization_profiles": ()}, "optimization_profiles: engine image 1x3 / 2x3 / 4x3, plan none"),
    ],
)
def test_each_change_of_the_build_configuration_is_compiled(changes: dict[str, Any], reason: str) -> None:
    assert reason_after(asked(**changes)) == reason


@pytest.mark.parametrize("field", HostTuple.__struct_fields__)
def test_each_field_of_the_host_leads_to_a_compilation(field: str) -> None:
    was = getattr(HOST, field)
    now = was + 1 if isinstance(was, int) else f"{was}.9"
    assert (
        reason_after(host=msgspec.structs.replace(HOST, **{field: now})) == f"host: {field}: engine {was}, host {now}"
    )


def test_another_runtime_leads_to_a_compilation() -> None:
    assert reason_after(label="tensorrt") == "runtime: engine onnx_trt_ep[cpu], configured tensorrt"


@given(st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_an_engine_is_used_again_only_where_nothing_differs(
    source: bool, precision: bool, host: bool, label: bool
) -> None:
    request = asked(precision="mixed") if precision else REQUEST
    request = msgspec.structs.replace(request, source_sha256="c" * 64) if source else request
    decision = decide(
        request, ENTRY, msgspec.structs.replace(HOST, sm=72) if host else HOST, "tensorrt" if label else LABEL
    )
    assert isinstance(decision, Reuse) == (not any((source, precision, host, label)))
    if isinstance(decision, Compile):
        assert decision.reason.count(";") == sum((source, precision, host, label)) - 1
