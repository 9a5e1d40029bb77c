"""`c7 provision`: what a person and what a program read of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from loguru import logger
from rich.console import Console

from messages import ConfigError, EngineBuildError
from runtimes import cli
from runtimes.cli import ProvisionedModel, ProvisionReport, ProvisionView, describe, provision
from runtimes.config import C7InferenceConfig
from runtimes.flight_plan import FlightPlan, FlightSection, ModelSection
from runtimes.provisioning.progress import ProvisionProgress, Step
from runtimes.store.engine_store import Generation

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

STEPS: tuple[Step, ...] = get_args(Step)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    values = [helper.make_tensor_value_info(name, kind, [1, 4]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "graph", values[:1], values[1:], [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "vpr.onnx")
    path = tmp_path / "flight.toml"
    path.write_text(
        '[flight]\nname = "survey"\n[runtime]\nruntime = "onnx_trt_ep"\nprovider = "cpu"\n'
        '[models.vpr]\nsource = "vpr.onnx"\nprecision = "fp32"\ndeadline_ms = 50\n'
    )
    return path


def test_a_person_reads_lines_and_a_table(plan: Path) -> None:
    done = CliRunner().invoke(provision, [str(plan)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "vpr: compile: no engine yet" in done.stdout
    assert "committed: generation 1 is current" in done.stdout
    again = CliRunner().invoke(provision, [str(plan)], catch_exceptions=False)
    assert "the store is up to date: generation 1" in again.stdout


def test_a_program_reads_one_json_document_and_the_progress_is_on_stderr(plan: Path) -> None:
    done = CliRunner().invoke(provision, [str(plan), "--json"], catch_exceptions=False)
    report = msgspec.json.decode(done.stdout, type=ProvisionReport)
    assert (report.generation, report.up_to_date) == (1, False)
    assert [(row.model, row.decision, row.reason) for row in report.models] == [("vpr", "compile", "no engine yet")]
    assert (Path(report.path) / report.models[0].engine).is_file()
    assert "vpr: compile" in done.stderr


def test_a_plan_that_is_not_there_and_a_source_that_is_not_there_are_raised_typed(plan: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        CliRunner().invoke(provision, [str(plan.with_name("other.toml"))], catch_exceptions=False)
    plan.with_name("vpr.onnx").unlink()
    with pytest.raises(EngineBuildError, match=r"\[models\.vpr\] source"):
        CliRunner().invoke(provision, [str(plan)], catch_exceptions=False)


def test_a_build_shows_elapsed_time_and_the_former_duration_and_never_a_percentage() -> None:
    progress = ProvisionProgress(
        step="compiling", model="vpr", elapsed_ns=61_000_000_000, former_build_ns=90_500_000_000
    )
    assert describe(progress) == "vpr: compiling for 61 s, the former build took 90.5 s"
    assert describe(ProvisionProgress(step="compiling", model="vpr", elapsed_ns=0)) == "vpr: compiling for 0 s"


def test_each_step_has_a_line_of_its_own() -> None:
    lines = {describe(ProvisionProgress(step=step, model="vpr", reason="why", decision="reuse")) for step in STEPS}
    assert len(lines) == len(STEPS)
    assert describe(ProvisionProgress(step="failed", model="vpr", reason="no such operator")) == (
        "vpr: failed: no such operator"
    )


def test_a_calibration_cache_that_is_refused_is_logged_as_an_error_and_noticed_in_the_report(tmp_path: Path) -> None:
    refused = ProvisionProgress(step="calibration_cache_refused", model="vpr", reason="dataset: expected a, found b")
    logged: list[str] = []
    sink = logger.add(lambda message: logged.append(f"{message.record['level'].name} {message.record['message']}"))
    shown = io.StringIO()
    try:
        with ProvisionView(Console(file=shown, force_terminal=True, width=200)) as view:
            view.show(refused)
    finally:
        logger.remove(sink)
    assert logged == ["ERROR C7 calibration cache refused, calibrating anew; model=vpr dataset: expected a, found b"]
    assert "vpr: calibration cache refused: dataset: expected a, found b" in shown.getvalue()
    report = view.report(fake_plan(tmp_path), Generation(1, tmp_path, {}, "a" * 64))
    assert report.notices == ["vpr: calibration cache refused: dataset: expected a, found b"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_result_that_the_disk_has_no_room_for_is_no_success(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "provision_engines", lambda plan, progress: Generation(1, tmp_path, {}, "a" * 64))
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(OSError, match="No space left"):
            provision.main([str(plan)], standalone_mode=False)


def fake_plan(folder: Path) -> FlightPlan:
    return FlightPlan(
        flight=FlightSection(name="survey", store=folder),
        runtime=C7InferenceConfig(),
        models={"vpr": ModelSection(source=folder / "vpr.pt2", deadline_ms=50)},
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_what_an_engine_says_of_itself_is_shown_as_it_is_and_steers_nothing(tmp_path: Path, terminal: bool) -> None:
    reason = "runtime: engine [/red]onnx_trt_ep[cpu]\x1b[2K\r, configured onnx_trt_ep[tensorrt]"
    shown = io.StringIO()
    report = ProvisionReport(
        generation=1,
        path="/engines/gen-000001",
        manifest_sha256="a" * 64,
        up_to_date=False,
        models=[
            ProvisionedModel(
                model="vpr",
                decision="compile",
                reason=reason,
                engine="vpr.engine",
                size_bytes=1,
                worst_error=None,
                build_s=1.0,
            )
        ],
        notices=[],
        stored_bytes=1,
        storage_budget_mb=1,
    )
    with ProvisionView(Console(file=shown, force_terminal=terminal, width=200)) as view:
        for step in ("decided", "failed"):
            view.show(ProvisionProgress(step=step, model="vpr", decision="compile", reason=reason))
        view.print(report)
    assert "\x1b[2K\r, configured" not in shown.getvalue()
    assert shown.getvalue().count("[/red]onnx_trt_ep[cpu]\\x1b[2K\\r, configured onnx_trt_ep[tensorrt]") >= 2
