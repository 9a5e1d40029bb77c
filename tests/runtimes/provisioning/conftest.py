"""Plans whose engines are made up: provisioning in this process, in milliseconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimes.config import C7InferenceConfig
from runtimes.flight_plan import FlightPlan, FlightSection, ModelSection
from runtimes.provisioning.fake_builder import FakeBuilder


@pytest.fixture
def fake_builder() -> FakeBuilder:
    return FakeBuilder()


@pytest.fixture
def fake_plan(tmp_path: Path) -> FlightPlan:
    """Two models of one source each, which any bytes are to a fake builder."""
    models: dict[str, ModelSection] = {}
    for name in ("vpr", "matcher"):
        source = tmp_path / f"{name}.onnx"
        source.write_bytes(f"{name}, trained once".encode())
        models[name] = ModelSection(source=source, deadline_ms=100)
    return FlightPlan(
        flight=FlightSection(name="survey", store=tmp_path / "engines"),
        runtime=C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"),
        models=models,
    )
