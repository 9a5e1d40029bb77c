"""`c7 provision`: what a person and what a program read of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from messages import ConfigError, EngineBuildError
from runtimes.cli import ProvisionReport, describe, provision
from runtimes.provisioning.provision import ProvisionProgress

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


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
