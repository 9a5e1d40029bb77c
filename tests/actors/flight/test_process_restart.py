"""A real engine that never returns: its flight process says so, ends with 75, and the next one recovers the flight."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actors.__main__ import main
from actors.demo.children import Child
from actors.demo.story import FLIES, READY
from messages import (
    EngineHung,
    FlightClosed,
    InferCompleted,
    InferRejected,
    ProcessRestartNeeded,
    WireMessage,
)
from telemetry import read_recording

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

WAIT_S = 60.0
RESTART_ME = 75
CONSUMER = """
import numpy as np
from pathlib import Path

class Pictures:
    def read(self, frame_id):
        return np.zeros((4, 4, 3), np.uint8)

class Spinner:
    '''Asks both models once a frame; while the file is there, one of them for more than it can ever do.'''

    def __init__(self, client, trigger):
        self.client = client
        self.trigger = Path(trigger)

    def on_frame(self, frame):
        count = 10**15 if self.trigger.exists() else 2
        asked = [("spins", count), ("steady", 1)]
        pending = [
            self.client.submit(model, {"count": np.array(n, np.int64)}, within_ms=300, frame_id=frame.frame_id)
            for model, n in asked
        ]
        outcomes = [each.result() for each in pending]
        return None if all(hasattr(each, "outputs") for each in outcomes) else "degraded"
"""


def write_counter(path: Path) -> None:
    """total = 1 added up `count` times, in a Loop: a huge count is a run that does not return."""
    node, scalar = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        [node("Identity", ["going"], ["goes_on"]), node("Add", ["so_far", "one"], ["sum"])],
        "body",
        [
            scalar("step", onnx.TensorProto.INT64, []),
            scalar("going", onnx.TensorProto.BOOL, []),
            scalar("so_far", onnx.TensorProto.FLOAT, []),
        ],
        [scalar("goes_on", onnx.TensorProto.BOOL, []), scalar("sum", onnx.TensorProto.FLOAT, [])],
        [onnx.helper.make_tensor("one", onnx.TensorProto.FLOAT, [], [1.0])],
    )
    graph = onnx.helper.make_graph(
        [node("Loop", ["count", "", "zero"], ["total"], body=body)],
        path.stem,
        [scalar("count", onnx.TensorProto.INT64, [])],
        [scalar("total", onnx.TensorProto.FLOAT, [])],
        [onnx.helper.make_tensor("zero", onnx.TensorProto.FLOAT, [], [0.0])],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "spinner.py").write_text(CONSUMER)
    sections = []
    for model in ("spins", "steady"):
        write_counter(tmp_path / f"{model}.onnx")
        sections.append(f'[models.{model}]\nsource = "{model}.onnx"\nprecision = "fp32"\ndeadline_ms = 300\n')
    path = tmp_path / "flight.toml"
    path.write_text(
        '[flight]\nname = "test"\nrun_limit_ms = 500\n[runtime]\nruntime = "onnx_trt_ep"\nprovider = "cpu"\n'
        + "".join(sections)
        + '[frames]\nsource = "spinner:Pictures"\nrate_hz = 10.0\n[consumers.spinner]\nclass = "spinner:Spinner"\n'
        + f'options = {{ trigger = "{tmp_path / "hang"}" }}\n'
    )
    assert main(["provision", str(path)]) == 0
    return path


def recorded(folder: Path, number: int) -> list[WireMessage]:
    [path] = (folder / "recordings").glob(f"*-life{number:04d}.mcap")
    return [each.message for each in read_recording(path)]


def test_a_process_whose_engine_hangs_settles_everything_ends_with_75_and_is_recovered_by_the_next(
    plan: Path, tmp_path: Path
) -> None:
    with Child(["fly", str(plan)], tmp_path / "life1.log", awaits=FLIES) as life:
        life.wait_until_said(WAIT_S)
        assert main(["declare", "airborne", "--flight", str(plan)]) == 0
        (tmp_path / "hang").touch()
        assert life.wait(WAIT_S) == RESTART_ME
        assert "spins has not returned for" in life.tail
        assert "start the flight process again" in life.tail
    (tmp_path / "hang").unlink()
    with Child(["fly", str(plan)], tmp_path / "life2.log", awaits=READY) as life:
        life.wait_until_said(WAIT_S)
        life.flies_on(1.0)
        assert life.terminate(WAIT_S) == 0

    first, second = recorded(tmp_path, 1), recorded(tmp_path, 2)
    [hung] = [each for each in first if isinstance(each, EngineHung)]
    assert hung.model == "spins"
    assert hung.running_ns > 500_000_000
    [needed] = [each for each in first if isinstance(each, ProcessRestartNeeded)]
    assert needed.fault == "hang"
    assert isinstance(first[-1], FlightClosed), "the life ended in order, and its recording is whole"
    asked = {each.request_id for each in first if type(each).__name__ == "Infer"}  # type: ignore[union-attr]
    answered = [each.request_id for each in first if isinstance(each, InferCompleted | InferRejected)]
    assert sorted(asked) == sorted(answered), "one outcome each, those of the engine that hangs included"
    assert any(isinstance(each, InferCompleted) and each.model == "spins" for each in second)


def test_a_runtime_that_cannot_run_refuses_a_takeoff_and_has_a_recovery_started_again(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = "BUILD_ONNX_TRT_EP_RUNTIME"
    monkeypatch.setenv(flag, "OFF")
    with Child(["fly", str(plan)], tmp_path / "refused.log", awaits=FLIES) as life:
        assert life.wait(WAIT_S) == 1
    monkeypatch.delenv(flag)
    with Child(["fly", str(plan)], tmp_path / "flown.log", awaits=FLIES) as life:
        life.wait_until_said(WAIT_S)
        assert main(["declare", "airborne", "--flight", str(plan)]) == 0
        assert life.terminate(WAIT_S) == 0
    monkeypatch.setenv(flag, "OFF")
    with Child(["fly", str(plan)], tmp_path / "down.log", awaits=FLIES) as life:
        assert life.wait(WAIT_S) == RESTART_ME
        assert f"{flag}=OFF" in life.tail
        assert "start the flight process again" in life.tail
    monkeypatch.delenv(flag)
    with Child(["fly", str(plan)], tmp_path / "recovered.log", awaits=READY) as life:
        life.wait_until_said(WAIT_S)
        assert life.terminate(WAIT_S) == 0
