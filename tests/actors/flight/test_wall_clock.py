"""The wall clock wakes in 1970 and jumps by years: provisioning, takeoff and recovery decide as they always do.

Every process of these tests has its wall clock shifted, builds included, and every file gets the times of that clock.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.__main__ import main
from actors.demo.children import Child
from actors.demo.story import FLIES, READY
from actors.flight.journal import Journal, read_journal
from messages import AirborneDeclared, FlightOpened
from runtimes import EngineStore

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[3]
WAIT_S = 60.0
AT_1970_S = 100_000.0
TEN_YEARS_S = 10 * 365.25 * 86_400
CLOCKS = {"1970": AT_1970_S, "right": time.time(), "in ten years": time.time() + TEN_YEARS_S}
PATH = tuple(sys.path)
SHIFTED = """
import datetime, os, time
began, real, starts_at = time.monotonic(), datetime.datetime, float(os.environ["C7_TEST_WALL_CLOCK_S"])
time.time = lambda: starts_at + time.monotonic() - began
time.time_ns = lambda: round(time.time() * 1e9)
class Shifted(real):
    @classmethod
    def now(cls, tz=None):
        return real.fromtimestamp(time.time(), tz)
    @classmethod
    def utcnow(cls):
        return real.fromtimestamp(time.time(), datetime.timezone.utc).replace(tzinfo=None)
datetime.datetime = Shifted
"""
"""Imported by every Python that finds it as `sitecustomize`, before anything else."""
PLAN = """
[flight]
name = "test"
[runtime]
runtime = "onnx_trt_ep"
provider = "cpu"
[models.vpr]
source = "vpr.onnx"
precision = "fp32"
deadline_ms = 5000
"""


class Aircraft:
    """A folder with a plan and its model, in which every command runs under a wall clock of the test's choice."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.plan = folder / "flight.toml"
        self._monkeypatch = monkeypatch
        (folder / "clock").mkdir()
        (folder / "clock" / "sitecustomize.py").write_text(SHIFTED)
        self.plan.write_text(PLAN)
        value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy"]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "vpr", value[:1], value[1:])
        opset = [onnx.helper.make_opsetid("", 17)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "vpr.onnx")

    def set_clock(self, clock: str) -> None:
        """For this process and all that it starts, and for the times of all files that are there."""
        starts_at_s = CLOCKS[clock]
        began_s = time.monotonic()
        self._monkeypatch.setenv("C7_TEST_WALL_CLOCK_S", str(starts_at_s))
        self._monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(self.folder / "clock"), str(ROOT)]))
        self._monkeypatch.setattr(sys, "path", [str(self.folder / "clock"), *PATH])  # what build children are given
        self._monkeypatch.setattr(time, "time", lambda: starts_at_s + time.monotonic() - began_s)
        self._monkeypatch.setattr(time, "time_ns", lambda: round(time.time() * 1e9))
        for path in [self.folder, *self.folder.rglob("*")]:
            os.utime(path, (starts_at_s, starts_at_s), follow_symlinks=False)

    def provision(self, capfd: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
        """What was decided of each model, and why."""
        capfd.readouterr()
        assert main(["provision", str(self.plan), "--json"]) == 0
        report = json.loads(capfd.readouterr().out)
        return [(row["decision"], row["reason"]) for row in report["models"]]

    def put_in_the_air(self) -> FlightOpened:
        """The journal of a flight that was declared airborne and whose process is gone."""
        generation = EngineStore(self.folder / "engines").current()
        assert generation is not None
        opened = FlightOpened("test-000009", 1, generation.number, generation.manifest_sha256, "boot", 1, 1)
        with Journal.open(self.folder / "state") as journal:
            journal.append(opened)
            journal.append(AirborneDeclared(1))
        return opened

    def lives(self) -> list[tuple[str, int, int]]:
        opened = [record.message for record in read_journal(self.folder / "state")]
        return [
            (each.flight_id, each.life, each.engine_generation) for each in opened if isinstance(each, FlightOpened)
        ]


@pytest.fixture
def aircraft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Aircraft:
    return Aircraft(tmp_path, monkeypatch)


def test_a_jump_from_1970_into_the_future_and_back_changes_no_decision(
    aircraft: Aircraft, capfd: pytest.CaptureFixture[str]
) -> None:
    aircraft.set_clock("1970")
    assert aircraft.provision(capfd) == [("compile", "no engine yet")]
    aircraft.set_clock("in ten years")
    assert aircraft.provision(capfd) == [("reuse", "unchanged")]
    for clock in ("in ten years", "1970"):
        aircraft.set_clock(clock)
        assert main(["engines", "verify", str(aircraft.plan)]) == 0
        assert main(["fly", str(aircraft.plan), "--for", "0.05"]) == 0
    assert [life for _, life, _ in aircraft.lives()] == [1, 1]

    opened = aircraft.put_in_the_air()
    for clock in ("in ten years", "1970"):
        aircraft.set_clock(clock)
        assert main(["fly", str(aircraft.plan), "--for", "0.05"]) == 0
    assert aircraft.lives()[-3:] == [(opened.flight_id, life, 1) for life in (1, 2, 3)]

    model = onnx.load(aircraft.folder / "vpr.onnx")
    model.doc_string = "retrained"
    onnx.save(model, aircraft.folder / "vpr.onnx")
    for clock in CLOCKS:  # a clock that was set back makes the retrained model the older file
        aircraft.set_clock(clock)
        assert main(["preflight", str(aircraft.plan)]) == 1
        assert "source changed" in capfd.readouterr().err


def test_the_clock_of_these_tests_is_in_force_in_every_process(aircraft: Aircraft) -> None:
    program = "import time, datetime; print(time.time(), time.time_ns(), datetime.datetime.now().timestamp())"
    for clock, expected in CLOCKS.items():
        aircraft.set_clock(clock)
        told = subprocess.run(  # noqa: S603 - our own interpreter, our own program
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT_S, check=True
        )
        seconds, nanoseconds, stamp = map(float, told.stdout.split())
        for found in (seconds, nanoseconds / 1e9, stamp, time.time()):
            assert expected <= found < expected + WAIT_S
        assert aircraft.plan.stat().st_mtime == pytest.approx(expected)


@pytest.mark.chaos
def test_any_clock_at_any_step_of_a_flights_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Provisioned, provisioned again, flown and killed, recovered: each under a clock of its own."""
    seed = int(os.environ.get("C7_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
    rounds = int(os.environ.get("C7_CHAOS_CLOCK_ROUNDS", "12"))
    steps = list(itertools.product(CLOCKS, repeat=4))
    chosen = random.Random(seed).sample(steps, min(rounds, len(steps)))
    for number, (built, checked, flown, recovered) in enumerate(chosen):
        print(f"C7_CHAOS_SEED={seed} {built}, {checked}, {flown}, {recovered}")
        folder = tmp_path / f"round{number}"
        folder.mkdir()
        aircraft = Aircraft(folder, monkeypatch)
        aircraft.set_clock(built)
        assert aircraft.provision(capfd) == [("compile", "no engine yet")]
        aircraft.set_clock(checked)
        assert aircraft.provision(capfd) == [("reuse", "unchanged")]
        aircraft.set_clock(flown)
        with Child(["fly", str(aircraft.plan)], folder / "life1.log", awaits=FLIES) as life:
            life.wait_until_said(WAIT_S)
            assert main(["declare", "airborne", "--flight", str(aircraft.plan)]) == 0
            life.kill()
        aircraft.set_clock(recovered)
        with Child(["fly", str(aircraft.plan)], folder / "life2.log", awaits=READY) as life:
            life.wait_until_said(WAIT_S)
            assert main(["declare", "landed", "--flight", str(aircraft.plan)]) == 0
            assert life.terminate(WAIT_S) == 0
        assert aircraft.lives() == [("test-000001", 1, 1), ("test-000001", 2, 1)], (built, checked, flown, recovered)
    print(f"\nC7_CHAOS_SEED={seed}: {len(chosen)} of {len(steps)} orders of clocks, 0 decisions changed")
