"""The airborne composition flies on real engines: no frame and no request is unaccounted for, whatever crashes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from examples import airborne
from messages import (
    ConsumerReported,
    EngineDied,
    InferCompleted,
    InferenceError,
    Tensor,
    ThrottleEntered,
    ThrottleLeft,
    TransientInferenceError,
)
from runtimes import EngineHandle, PytorchFp16Runtime
from telemetry import read_recording, tally_flight
from tests.examples.program import run_example
from tests.examples.test_examples import shown, without_numbers

pytestmark = pytest.mark.torch
CONSUMERS = ("c2_vpr", "c2_5_rerank", "c3_matcher", "c3_5_adhop", "c4_pose")
Infer = Callable[[PytorchFp16Runtime, EngineHandle, Mapping[str, Tensor]], dict[str, Tensor]]


@pytest.fixture(autouse=True)
def packages() -> None:
    for package in ("torch", "onnx", "PIL", "sklearn"):
        pytest.importorskip(package, reason="comes with the extras `torch` and `demo`")


@pytest.mark.timeout(400)
def test_airborne(tmp_path: Path) -> None:
    result = run_example("airborne.py", "--for", 8, "--folder", tmp_path, timeout_s=350)
    assert result.returncode == 0, result.stdout + result.stderr
    told = result.stdout
    assert re.search(r"^throttle: entered 1, left 1$", told, re.MULTILINE)
    assert re.search(r"^c3_5_adhop: \d+ good, [1-9]\d* degraded, \d+ missed$", told, re.MULTILINE)
    assert re.search(r"^  frame \d+ was the first: no result from refiner: ", told, re.MULTILINE)
    assert re.search(r"^refiner: .* inference_error.*; restarts 1$", told, re.MULTILINE)
    assert told.endswith(f"every frame and every request is accounted for ({tmp_path / 'flight-001.mcap'})\n")
    subject = re.compile(r"^[\w ]+:", re.MULTILINE)
    on_the_page = [without_numbers(each) for each in subject.findall(shown("python examples/airborne.py"))]
    assert set(on_the_page) <= {without_numbers(each) for each in subject.findall(told)}


def test_what_cannot_be_provisioned_does_not_fly(tmp_path: Path) -> None:
    in_the_way = tmp_path / "a-file"
    in_the_way.write_text("no folder")
    result = run_example("airborne.py", "--folder", in_the_way)
    assert result.returncode == 1
    assert result.stdout.startswith("no flight: ")
    assert str(in_the_way) in result.stdout


def crashing(infer: Infer, faults: Mapping[tuple[str, int], type[InferenceError]]) -> Infer:
    """A real engine's run, but for the n-th ones of a model that raise. Runs before the flight count too."""
    runs: Counter[str] = Counter()

    def infer_or_raise(
        self: PytorchFp16Runtime, handle: EngineHandle, inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        model = handle.entry.model
        runs[model] += 1
        fault = faults.get((model, runs[model]))
        if fault is not None:
            raise fault(f"{model}: planned, run {runs[model]}")
        return infer(self, handle, inputs)

    return infer_or_raise


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_in_60_s_every_frame_and_request_is_accounted_for_though_every_engine_fails_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The refiner crashes by itself. Of three runs of the extractor in a row at least one is C2.5's and one C3's."""
    faults = {("backbone", 60): InferenceError, ("matcher", 1500): InferenceError}
    faults |= {("extractor", run): TransientInferenceError for run in (200, 201, 202)}
    monkeypatch.setattr(PytorchFp16Runtime, "infer", crashing(PytorchFp16Runtime.infer, faults))
    code = airborne.main(60.0, tmp_path)
    told = capsys.readouterr().out
    with capsys.disabled():
        print(f"\n{told}")
    assert code == 0

    recorded = list(read_recording(tmp_path / "flight-001.mcap"))
    messages = [each.message for each in recorded]
    counted = re.search(r"^frames: (\d+) read, (\d+) failed, (\d+) skipped$", told, re.MULTILINE)
    assert counted is not None
    read, failed, skipped = map(int, counted.groups())
    assert 180 <= read + failed + skipped <= 182

    served = {(each.consumer, each.frame_id) for each in messages if isinstance(each, InferCompleted)}
    for consumer in CONSUMERS:
        reports = [each for each in messages if isinstance(each, ConsumerReported) and each.consumer == consumer]
        line = re.search(rf"^{consumer}: (\d+) good, (\d+) degraded, (\d+) missed$", told, re.MULTILINE)
        assert line is not None
        good, degraded, missed = map(int, line.groups())
        assert good + degraded + missed == read
        assert (good, degraded) == (
            sum(each.good for each in reports),
            sum(not each.good for each in reports),
        )
        if consumer != "c4_pose":
            first = next(each.frame_id for each in reports if not each.good)
            assert any(
                each.good and each.frame_id > first and (consumer, each.frame_id) in served for each in reports
            ), f"{consumer} was degraded and never good again"

    for model, row in tally_flight([recorded]).items():
        assert row.submitted == row.completed + sum(row.rejected.values()), model
        assert row.lost == 0, model
        assert row.restarts >= (model != "extractor"), model
    assert {each.model for each in messages if isinstance(each, EngineDied)} >= {"backbone", "matcher", "refiner"}
    assert sum(isinstance(each, ThrottleEntered) for each in messages) == 1
    assert sum(isinstance(each, ThrottleLeft) for each in messages) == 1
    modes = re.search(
        r"^c4_pose: \d+ frames steady_state, then \d+ frames throttled, then \d+ frames steady_state$",
        told,
        re.MULTILINE,
    )
    assert modes is not None
