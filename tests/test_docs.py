"""The examples of the pages under docs/ are read by the program that they describe."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from messages import VirtualClock
from runtimes import C7InferenceConfig, FlightPlan, TensorrtSection, read_flight_plan
from runtimes.flight_plan import (
    ConsumerSection,
    FlightSection,
    FramesSection,
    ModelSection,
    ProfileSection,
    ThermalSection,
)
from telemetry import ReplayThermalSource

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "flight-plan.md").read_text(encoding="utf-8")


def example(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def plan(tmp_path: Path) -> FlightPlan:
    path = tmp_path / "flight.toml"
    path.write_text(example("toml"), encoding="utf-8")
    return read_flight_plan(path)


def test_the_pages_flight_plan_is_one(plan: FlightPlan, tmp_path: Path) -> None:
    assert list(plan.models) == ["ultravpr", "lightglue"]
    assert plan.models["ultravpr"].source == tmp_path / "models" / "ultravpr.onnx"
    assert plan.consumers.keys() == {"c2_vpr"}


@pytest.mark.parametrize(
    "section",
    [
        FlightSection,
        C7InferenceConfig,
        TensorrtSection,
        ThermalSection,
        ModelSection,
        ProfileSection,
        FramesSection,
        ConsumerSection,
    ],
)
def test_the_page_names_every_key_of_a_table(section: type[msgspec.Struct]) -> None:
    refused_in_a_plan = {"engine_dir", "storage_room_bytes", "timing_cache_dir"}
    keys = (
        {field.encode_name for field in msgspec.structs.fields(section)} - refused_in_a_plan - {"profiles", "tensorrt"}
    )
    for key in keys:  # those two are tables
        assert re.search(rf"^(# )?{key} = ", example("toml"), re.MULTILINE), key


def test_the_pages_trace_plays(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(example("json"), encoding="utf-8")
    clock = VirtualClock()
    source = ReplayThermalSource(path, clock)
    assert source.read().throttled_by == ()
    clock.advance_ms(4000)
    assert source.read().throttled_by == ("gpu-throttle-alert",)


def test_every_decision_is_listed_once_by_its_title() -> None:
    index = DOCS / "decisions" / "README.md"
    pages = sorted(page for page in index.parent.glob("*.md") if page != index)
    titles = {page.name: page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for page in pages}
    listed = re.findall(r"^- \[(.+)\]\((.+)\)$", index.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(listed) == len(titles)
    assert {name: title for title, name in listed} == titles
