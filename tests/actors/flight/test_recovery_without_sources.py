"""The real flight process on a camera and a thermal source that may not be there: on the ground, and in the air."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from actors.__main__ import main
from actors.demo.children import Child
from actors.flight.journal import Journal
from messages import AirborneDeclared, ConsumerReported, InferCompleted, TelemetryLost, TelemetryRestored
from telemetry import read_recording

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

WAIT_S = 60.0
MODULE = """
import threading
from pathlib import Path
import numpy as np

class Camera:
    def __init__(self, device):
        if not Path(device).exists():
            raise OSError(19, "No such device", device)
        while Path(device).read_text() == "hangs":
            print("the camera hangs", flush=True)
            threading.Event().wait(0.1)
    def read(self, frame_id):
        return np.full((2, 2, 3), frame_id % 256, np.uint8)

class Watching:
    '''Asks its model where it sees the board's heat.'''
    def __init__(self, client):
        self.client = client
    def on_frame(self, frame):
        if self.client.thermal_state().source_lost:
            return "no telemetry"
        outcome = self.client.infer("echo", {"x": np.ones(1, np.float32)}, within_ms=5000, frame_id=frame.frame_id)
        return None if hasattr(outcome, "outputs") else outcome.reason

class Grabbing(Watching):
    '''Leaves a thread behind that ends with nothing.'''
    def __init__(self, client):
        super().__init__(client)
        threading.Thread(target=threading.Event().wait).start()
"""
HEAT = {"at_s": 0.0, "cpu_temp_c": 61.0, "gpu_temp_c": 62.5, "gpu_clock_mhz": 1020, "throttled_by": []}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A provisioned flight whose camera and heat are there."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "late_surroundings.py").write_text(MODULE)
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "echo",
        [tensor("x", onnx.TensorProto.FLOAT, [1])],
        [tensor("y", onnx.TensorProto.FLOAT, [1])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "echo.onnx")
    (tmp_path / "flight.toml").write_text(
        '[flight]\nname = "test"\n[runtime]\nruntime = "onnx_trt_ep"\nprovider = "cpu"\n'
        '[models.echo]\nsource = "echo.onnx"\nprecision = "fp32"\ndeadline_ms = 5000\n'
        '[thermal]\nsource = "replay"\ntrace = "heat.jsonl"\nperiod_s = 0.1\n'
        '[frames]\nsource = "late_surroundings:Camera"\nrate_hz = 20.0\n'
        f'options = {{ device = "{tmp_path / "video0"}" }}\n'
        '[consumers.watching]\nclass = "late_surroundings:Watching"\n'
    )
    assert main(["provision", str(tmp_path / "flight.toml")]) == 0
    connect(tmp_path)
    return tmp_path


def connect(folder: Path) -> None:
    (folder / "heat.jsonl").write_text(json.dumps(HEAT) + "\n")
    (folder / "video0").touch()


def disconnect(folder: Path) -> None:
    (folder / "heat.jsonl").unlink()
    (folder / "video0").unlink()


def test_on_the_ground_a_camera_that_is_not_there_is_a_no_go_and_refuses_the_takeoff(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "video0").unlink()
    plan = str(folder / "flight.toml")
    capfd.readouterr()
    assert main(["preflight", plan, "--json"]) == 1
    verdict = json.loads(capfd.readouterr().out)
    [problem] = verdict["problems"]
    assert problem.startswith("[frames] source: late_surroundings:Camera cannot be constructed: ")
    assert "No such device" in problem
    assert [engine["problem"] for engine in verdict["engines"]] == [""]
    assert main(["fly", plan, "--for", "1"]) == 2
    assert problem in capfd.readouterr().err


def test_in_the_air_the_flight_begins_without_camera_and_heat_and_takes_both_when_they_come(folder: Path) -> None:
    plan = str(folder / "flight.toml")
    assert main(["fly", plan, "--for", "0.1"]) == 0
    with Journal.open(folder / "state") as journal:
        journal.append(AirborneDeclared(1))
    disconnect(folder)
    with Child(["fly", plan, "--log-level", "DEBUG"], folder / "life2.log", awaits="C7 telemetry unavailable") as life:
        life.wait_until_said(WAIT_S)
        connect(folder)
        life.wait_until_said_again("C7 infer backbone=echo", WAIT_S)  # which the consumer asks once it has both
        assert life.terminate(WAIT_S) == 0

    log = (folder / "life2.log").read_text()
    assert "[frames] source: late_surroundings:Camera cannot be constructed: OSError" in log
    assert log.count("C7 frame source constructed") == 1
    [recording] = (folder / "recordings").glob("*-life0002.mcap")
    messages = [each.message for each in read_recording(recording)]
    thermal = [type(message) for message in messages if isinstance(message, TelemetryLost | TelemetryRestored)]
    assert thermal[:2] == [TelemetryLost, TelemetryRestored]
    assert any(isinstance(message, InferCompleted) for message in messages)
    assert any(isinstance(message, ConsumerReported) and message.good for message in messages)
    frames = json.loads(recording.with_suffix(".json").read_bytes())["frames"]
    assert frames["failed"] > 0
    assert frames["read"] > 0


def test_a_camera_that_hangs_in_the_air_costs_frames_and_neither_the_engines_nor_the_landing(folder: Path) -> None:
    plan = str(folder / "flight.toml")
    assert main(["fly", plan, "--for", "0.1"]) == 0
    with Journal.open(folder / "state") as journal:
        journal.append(AirborneDeclared(1))
    (folder / "video0").write_text("hangs")
    with Child(["fly", plan], folder / "life2.log", awaits="C7 ready") as life:
        life.wait_until_said(WAIT_S)
        life.wait_until_said_again("the camera hangs", WAIT_S)
        assert main(["declare", "landed", "--flight", plan]) == 0
        assert life.terminate(WAIT_S) == 0
        assert "C7 frame loop stopped without; hung=frames" in life.tail
    [summary] = (folder / "recordings").glob("*-life0002.json")
    frames = json.loads(summary.read_bytes())["frames"]
    assert (frames["read"], frames["failed"]) == (0, 0)


def test_a_rehearsal_ends_although_a_component_leaves_a_thread_behind(folder: Path) -> None:
    plan = folder / "flight.toml"
    plan.write_text(plan.read_text().replace(":Watching", ":Grabbing"))
    with Child(["preflight", str(plan)], folder / "preflight.log") as rehearsal:
        assert rehearsal.wait(WAIT_S) == 0
    assert rehearsal.tail.rstrip().endswith("GO")
