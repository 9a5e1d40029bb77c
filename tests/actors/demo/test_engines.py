"""What `make engines` provisions: a folder of plan, models and store that can be published and flown elsewhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actors.__main__ import main
from actors.demo.engines import main as write_demo
from runtimes import read_flight_plan

pytest.importorskip("onnx", reason="the demo's models are made with onnx")


def write(*arguments: str) -> Result:
    return CliRunner().invoke(write_demo, list(arguments))


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def provision(plan: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, object]:
    capfd.readouterr()
    assert main(["provision", str(plan), "--json"]) == 0
    report: dict[str, object] = json.loads(capfd.readouterr().out)
    return report


def test_engines_that_were_provisioned_once_are_up_to_date_in_any_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "engines"
    assert write(str(folder)).output.strip() == str(folder / "flight.toml")
    assert provision(folder / "flight.toml", capfd)["up_to_date"] is False
    written = contents(folder)
    assert write(str(folder)).exit_code == 0
    assert contents(folder) == written, "a second run writes the same bytes"
    assert provision(folder / "flight.toml", capfd)["up_to_date"] is True

    elsewhere = folder.rename(tmp_path / "published")
    assert provision(elsewhere / "flight.toml", capfd)["up_to_date"] is True
    plan = read_flight_plan(elsewhere / "flight.toml")
    inside = [plan.flight.store, plan.thermal.trace, *(section.source for section in plan.models.values())]
    assert all(path is not None and path.is_relative_to(elsewhere) and path.exists() for path in inside)


@pytest.mark.parametrize(("provider", "precision"), [("cpu", "fp32"), ("cuda", "mixed"), ("tensorrt", "mixed")])
def test_the_plan_says_the_provider_that_was_asked_for(tmp_path: Path, provider: str, precision: str) -> None:
    assert write(str(tmp_path), "--provider", provider).exit_code == 0
    plan = read_flight_plan(tmp_path / "flight.toml")
    assert plan.runtime.provider == provider
    assert {section.precision for section in plan.models.values()} == {precision}


def test_a_provider_belongs_to_one_runtime(tmp_path: Path) -> None:
    result = write(str(tmp_path), "--runtime", "pytorch_fp16", "--provider", "cuda")
    assert result.exit_code == 2
    assert "--provider belongs to onnx_trt_ep" in result.output


def test_a_folder_that_cannot_be_written_is_named_without_a_traceback() -> None:
    result = write("/dev/null/engines")
    assert result.exit_code == 1
    assert "/dev/null/engines" in result.output
    assert "Traceback" not in result.output
