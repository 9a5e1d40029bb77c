"""The benchmark of the demonstration's engines runs over the doubles, and lets none of their figures pass for a
device's."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from benchmarks.engine_costs import EngineCosts, Spread, spread
from benchmarks.tensorrt_engines import OF_A_DOUBLE, RESULTS, Result, main, rendered, slug
from runtimes.measurements import PowerMode
from tests.bindings.fetched import run_python
from tests.hardware import DOUBLES

SMALL = ("--rounds", "3", "--loads", "1", "--samples", "2", "--builder", "api")
OVER_DOUBLE = [DOUBLES, DOUBLES / "nvml"]
BENCHMARK = "benchmarks.tensorrt_engines"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with page and JSON of one small run over the doubles."""
    pytest.importorskip("onnx")
    pytest.importorskip("PIL")
    folder = tmp_path_factory.mktemp("results")
    arguments = ("-m", BENCHMARK, *SMALL, "--models", "matcher", "refiner", "--precisions", "fp16", "int8")
    told = run_python(*arguments, "--out", str(folder), paths=OVER_DOUBLE, library_path=None)
    assert told.returncode == 0, told.stdout + told.stderr
    return folder


def result_of(folder: Path) -> Result:
    [path] = folder.glob("*.json")
    return msgspec.json.decode(path.read_bytes(), type=Result)


def test_every_engine_is_built_twice_loaded_run_captured_and_held_against_its_reference(measured: Path) -> None:
    found = {(each.model, each.precision): each for each in result_of(measured).engines}
    assert [*found] == [("matcher", "fp16"), ("matcher", "int8"), ("refiner", "fp16"), ("refiner", "int8")]
    for costs in found.values():
        assert costs.refused == ""
        for name in ("build_s", "again_s", "activation_bytes", "load_ms", "graph_gain", "engine_bytes"):
            assert getattr(costs, name) > 0, name
        for name in ("host_ms", "device_ms", "graph_ms", "enqueue_us", "launch_us"):
            of_runs: Spread = getattr(costs, name)
            assert 0 < of_runs.p50 <= of_runs.p99, name
        assert costs.error is not None
        assert costs.error < 1e-3, "the double computes in fp32, whatever was asked for"
        assert costs.layers.get(costs.precision, 0) >= 1


def test_the_page_says_in_its_head_that_a_double_was_measured_and_where_with_what(measured: Path) -> None:
    [page] = measured.glob("*.md")
    text = page.read_text()
    assert text.index(OF_A_DOUBLE) < text.index("| model |")
    result = result_of(measured)
    assert result.double
    assert page.stem == f"tensorrt-{slug(result)}"
    for said in (result.command, result.host.device_name, "Power mode: no Jetson", "onnxruntime", "polygraphy"):
        assert said in text or (said == "polygraphy" and "polygraphy" not in result.versions)
    assert len(re.findall(r"^\| (?:matcher|refiner) \| (?:fp16|int8) \|", text, re.MULTILINE)) == 8


def test_a_doubles_figures_are_not_written_among_those_of_devices() -> None:
    before = sorted(RESULTS.iterdir())
    told = run_python("-m", BENCHMARK, *SMALL, paths=OVER_DOUBLE, library_path=None)
    assert told.returncode == 1
    assert "expected NVIDIA's TensorRT, found its double" in told.stderr
    assert "--out" in told.stderr
    assert sorted(RESULTS.iterdir()) == before


def test_no_result_in_the_repository_is_a_doubles() -> None:
    assert [path.name for path in RESULTS.glob("*.json") if json.loads(path.read_bytes())["double"]] == []


def test_without_the_library_it_says_so_and_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    assert main([]) == 1
    assert "tensorrt_engines: tensorrt: expected NVIDIA's Python bindings" in capsys.readouterr().err


def test_another_runtime_is_measured_in_what_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("PIL")
    assert main([*SMALL, "--runtime", "onnx_trt_ep", "--models", "refiner", "--out", str(tmp_path)]) == 0
    assert OF_A_DOUBLE not in capsys.readouterr().out
    result = result_of(tmp_path)
    [costs] = result.engines
    assert (costs.precision, costs.graph_ms, costs.enqueue_us) == ("fp32", None, None)
    assert costs.host_ms is not None
    assert costs.notes[-1] == "no graph: only TensorRT is asked for these"


def test_an_engine_that_is_refused_stands_on_the_page_with_its_reason(measured: Path) -> None:
    refused = EngineCosts(model="matcher", precision="int8", refused="matcher.onnx: expected a scale")
    text = rendered(msgspec.structs.replace(result_of(measured), engines=(refused,)))
    assert "- matcher int8 is refused: matcher.onnx: expected a scale" in text


def test_a_board_in_another_power_mode_has_a_page_of_its_own(measured: Path) -> None:
    result = result_of(measured)
    mode = PowerMode(name="MAXN_SUPER", cpu_max_mhz=1728, gpu_max_mhz=1020)
    host = msgspec.structs.replace(result.host, device_name="Orin", jetpack="6.2", tensorrt="10.3.0.30")
    assert slug(msgspec.structs.replace(result, host=host, power=mode)) == "orin-jp6.2-trt10.3.0.30-maxn_super"
    other = msgspec.structs.replace(mode, name="15W")
    assert slug(msgspec.structs.replace(result, host=host, power=other)) == "orin-jp6.2-trt10.3.0.30-15w"


def test_a_percentile_is_a_duration_that_was_measured() -> None:
    assert spread([4_000, 1_000, 3_000, 2_000], 1_000) == Spread(2.0, 4.0)
    assert spread(list(range(1, 201)), 1) == Spread(100.0, 198.0)
