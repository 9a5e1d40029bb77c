"""The real flight process: taken off, declared airborne, killed with SIGKILL, and back again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from actors.__main__ import main
from actors.demo.children import Child
from actors.demo.story import FLIES, READY
from actors.flight.journal import Journal, read_journal
from messages import (
    AirborneDeclared,
    AllEnginesLoaded,
    ConsumerReported,
    EngineDied,
    EngineLoaded,
    FlightClosed,
    FlightOpened,
    Infer,
    InferCompleted,
    LandedDeclared,
    WireMessage,
)
from runtimes import EngineCacheEntry
from runtimes.store.read_ahead import ReadAhead
from telemetry import read_recording, tally_flight

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

WAIT_S = 60.0
MODELS = ("urgent", "normal", "later")
CONSUMER = '''
from pathlib import Path
import numpy as np
from messages import InferCompleted, InferenceError, OutOfMemoryError
from runtimes import deserialize_cached_engine, read_entry

class Pictures:
    def read(self, frame_id):
        return np.full((4, 4, 3), frame_id % 256, np.uint8)

class Doubler:
    """Asks every model once per frame; at `crash_at` it passes an index that is out of the model's range."""

    def __init__(self, client, crash_at=-1):
        self.client = client
        self.crash_at = crash_at

    def on_frame(self, frame):
        x = np.full(3, frame.frame_id, np.float32)
        index = np.array([9 if frame.frame_id == self.crash_at else 1], np.int64)
        for model in ("urgent", "normal", "later"):
            inputs = {"x": x, "index": index if model == "later" else index * 0}
            outcome = self.client.infer(model, inputs, within_ms=5000, frame_id=frame.frame_id)
            if not isinstance(outcome, InferCompleted):
                return f"{model}: {outcome.reason}"
            if outcome.outputs["y"][0] != 2 * np.float32(frame.frame_id):
                return f"{model}: wrong result"
        return None

class Shared:
    """Written against the runtime's interface: its own engine, and the one that consumers share."""

    def __init__(self, c7_inference, c3_lightglue_runtime, *, engine):
        self.c7_inference, self.c3_lightglue_runtime = c7_inference, c3_lightglue_runtime
        self.handle = deserialize_cached_engine(c7_inference, read_entry(Path(engine)))

    def on_frame(self, frame):
        inputs = {"x": np.full(3, frame.frame_id, np.float32), "index": np.array([1], np.int64)}
        try:
            own = self.c7_inference.infer(self.handle, inputs)
            shared = self.c3_lightglue_runtime.match(inputs)
        except (InferenceError, OutOfMemoryError) as error:
            return str(error)
        return None if own["y"][0] == shared["y"][0] == 2 * np.float32(frame.frame_id) else "wrong result"
'''


FAILING = """
from pathlib import Path

def check():
    if (Path(__file__).parent / "trouble").exists():
        raise OSError("its map cannot be read")

{check_at_import}

class Failing:
    def __init__(self, client):
        check()

    def on_frame(self, frame):
        return None
"""


def write_model(path: Path) -> None:
    """y = (x + x)[index]: an index out of range is a real fault inside ONNX Runtime."""
    node = onnx.helper.make_node
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node("Add", ["x", "x"], ["doubled"]), node("Gather", ["doubled", "index"], ["y"])],
        path.stem,
        [tensor("x", onnx.TensorProto.FLOAT, [3]), tensor("index", onnx.TensorProto.INT64, [1])],
        [tensor("y", onnx.TensorProto.FLOAT, [1])],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)


class Flight(NamedTuple):
    """A provisioned flight in a folder of its own."""

    folder: Path

    @property
    def plan(self) -> Path:
        return self.folder / "flight.toml"

    def fly(self, log: str, awaits: str = FLIES) -> Child:
        return Child(["fly", str(self.plan), "--log-level", "DEBUG"], self.folder / log, awaits=awaits)

    def declare(self, state: str) -> None:
        assert main(["declare", state, "--flight", str(self.plan)]) == 0

    def recorded(self, number: int) -> list[WireMessage]:
        [path] = (self.folder / "recordings").glob(f"*-life{number:04d}.mcap")
        return [each.message for each in read_recording(path)]


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled once; each test flies a copy."""
    folder = tmp_path_factory.mktemp("provisioned")
    (folder / "doubler.py").write_text(CONSUMER)
    sections = []
    for priority, model in enumerate(MODELS):
        write_model(folder / f"{model}.onnx")
        sections.append(
            f'[models.{model}]\nsource = "{model}.onnx"\nprecision = "fp32"\npriority = {priority}\n'
            'deadline_ms = 5000\nconsumers = ["doubler"]\n'
        )
    (folder / "flight.toml").write_text(
        '[flight]\nname = "test"\nlightglue = "urgent"\n[runtime]\nruntime = "onnx_trt_ep"\nprovider = "cpu"\n'
        + "".join(reversed(sections))  # the order of loading is the priorities', not the file's
        + '[frames]\nsource = "doubler:Pictures"\nrate_hz = 20.0\n'
        '[consumers.doubler]\nclass = "doubler:Doubler"\noptions = { crash_at = 4 }\n'
        '[consumers.shared]\nclass = "doubler:Shared"\nengines = { engine = "normal" }\nwithin_ms = 5000\n'
    )
    assert main(["provision", str(folder / "flight.toml")]) == 0
    return folder


@pytest.fixture
def flight(provisioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flight:
    folder = tmp_path / "flight"
    shutil.copytree(provisioned, folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path.cwd())]))
    monkeypatch.syspath_prepend(folder)
    return Flight(folder)


def of(messages: list[WireMessage], kind: type[WireMessage]) -> list[WireMessage]:
    return [message for message in messages if isinstance(message, kind)]


def test_a_flight_killed_in_the_air_recovers_with_its_engines_in_priority_order(flight: Flight) -> None:
    with flight.fly("life1.log") as life:
        life.wait_until_said(WAIT_S)
        flight.declare("airborne")
        life.flies_on(2.0)
        life.kill()
    with flight.fly("life2.log", awaits=READY) as life:
        life.wait_until_said(WAIT_S)
        life.flies_on(1.0)
        flight.declare("landed")
        assert life.terminate(WAIT_S) == 0

    first, second = flight.recorded(1), flight.recorded(2)
    assert not of(first, FlightClosed), "nothing says goodbye before a SIGKILL"
    assert [m.model for m in of(second, EngineLoaded) if isinstance(m, EngineLoaded)] == list(MODELS)
    assert len(of(second, AllEnginesLoaded)) == 1
    assert of(second, InferCompleted)
    for recorded in (first, second):
        good = {m.consumer for m in of(recorded, ConsumerReported) if isinstance(m, ConsumerReported) and m.good}
        assert good == {"doubler", "shared"}
    asked = [m for m in of(second, Infer) if isinstance(m, Infer) and m.consumer == "shared"]
    assert {m.model for m in asked} == {"normal", "urgent"}
    assert all(m.frame_id >= 1_000_000 and m.captured_ns for m in asked), "each call carries its frame"

    died = [m for m in of(first, EngineDied) if isinstance(m, EngineDied)]
    assert [m.model for m in died] == ["later"], "the index out of range is one engine's crash"
    generations = [
        m.generation for m in of(first, InferCompleted) if isinstance(m, InferCompleted) and m.model == "later"
    ]
    assert generations[-1] == 2, "and it answered again before the kill"

    journal = [record.message for record in read_journal(flight.folder / "state")]
    kinds = [FlightOpened, AirborneDeclared, FlightOpened, LandedDeclared, FlightClosed]
    assert [type(message) for message in journal] == kinds
    opened = [message for message in journal if isinstance(message, FlightOpened)]
    assert [(each.flight_id, each.life) for each in opened] == [("test-000001", 1), ("test-000001", 2)]
    assert opened[0].manifest_sha256 == opened[1].manifest_sha256


def test_the_recordings_account_for_every_request_and_agree_with_the_process_itself(flight: Flight) -> None:
    with flight.fly("life1.log") as life:
        life.wait_until_said(WAIT_S)
        life.flies_on(1.5)
        assert life.terminate(WAIT_S) == 0
    [recording] = (flight.folder / "recordings").glob("*.mcap")
    rows = tally_flight([list(read_recording(recording))])
    summary = json.loads(recording.with_suffix(".json").read_bytes())
    assert set(rows) == set(MODELS)
    for model, row in rows.items():
        assert row.conserved
        assert row.lost == 0
        ledger = summary["models"][model]
        assert (row.submitted, row.completed, row.rejected) == (
            ledger["submitted"],
            ledger["completed"],
            ledger["rejected"],
        )
    assert summary["records_dropped"] == 0


def test_a_flight_that_landed_is_followed_by_a_new_flight(flight: Flight) -> None:
    for number in (1, 2):
        with flight.fly(f"flight{number}.log") as life:
            life.wait_until_said(WAIT_S)
            assert life.terminate(WAIT_S) == 0
    opened = [r.message for r in read_journal(flight.folder / "state") if isinstance(r.message, FlightOpened)]
    assert opened[-1].flight_id == "test-000002"
    assert opened[-1].life == 1


def test_a_flight_without_its_former_journal_counts_on_from_the_recordings(flight: Flight) -> None:
    assert main(["fly", str(flight.plan), "--for", "0.1"]) == 0
    (flight.folder / "state" / "flight.journal").rename(flight.folder / "damaged.journal")
    assert main(["fly", str(flight.plan), "--for", "0.1"]) == 0
    recordings = sorted(path.name for path in (flight.folder / "recordings").glob("*.mcap"))
    assert recordings == ["test-000001-life0001.mcap", "test-000002-life0001.mcap"]


def test_a_second_flight_process_is_refused_while_the_first_one_flies(
    flight: Flight, capfd: pytest.CaptureFixture[str]
) -> None:
    with flight.fly("life1.log") as life:
        life.wait_until_said(WAIT_S)
        assert main(["fly", str(flight.plan)]) == 1
        assert "flight process that is running" in capfd.readouterr().err
        assert life.terminate(WAIT_S) == 0


_OPENED: Counter[str] | None = None


def _count_opens(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _OPENED is not None:
        _OPENED[Path(os.fsdecode(str(arguments[0]))).name] += 1


sys.addaudithook(_count_opens)


class NotedReadAhead(ReadAhead):
    """Knows what it was to read ahead and in which order that was asked for, and ends the flight with its own end."""

    def __init__(self, entries: list[EngineCacheEntry]) -> None:
        super().__init__(entries)
        self.told = [entry.model for entry in entries]
        self.asked: list[str] = []

    def read(self, entry: EngineCacheEntry) -> bytes:
        self.asked.append(entry.model)
        return super().read(entry)

    def close(self) -> None:
        super().close()
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("airborne", [False, True])
def test_takeoff_and_recovery_read_ahead_by_priority_and_open_each_engine_once(
    flight: Flight, airborne: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    global _OPENED
    flight.plan.write_text(flight.plan.read_text().replace("crash_at = 4", "crash_at = -1"))
    if airborne:
        assert main(["fly", str(flight.plan), "--for", "0.1"]) == 0
        with Journal.open(flight.folder / "state") as journal:
            journal.append(AirborneDeclared(1))
    noted: list[NotedReadAhead] = []

    def note(entries: list[EngineCacheEntry]) -> NotedReadAhead:
        noted.append(NotedReadAhead(entries))
        return noted[-1]

    monkeypatch.setattr("actors.flight.process.ReadAhead", note)
    _OPENED = Counter()
    try:
        assert main(["fly", str(flight.plan), "--for", str(WAIT_S)]) == 0
        opened = {name.partition("__")[0]: count for name, count in _OPENED.items() if name.endswith(".engine")}
    finally:
        _OPENED = None
    summary = json.loads(max((flight.folder / "recordings").glob("*.json")).read_bytes())
    assert summary["ended_because"] == "SIGTERM", "it was closed as soon as every engine was decided"
    [read_ahead] = noted
    assert read_ahead.told == read_ahead.asked == list(MODELS)
    assert opened == dict.fromkeys(MODELS, 1)
    assert read_ahead.held_bytes == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("c7-read-ahead")]


def test_a_model_that_the_generation_in_the_air_lacks_stays_down_and_the_others_are_recovered(flight: Flight) -> None:
    assert main(["fly", str(flight.plan), "--for", "0.1"]) == 0
    with Journal.open(flight.folder / "state") as journal:
        journal.append(AirborneDeclared(1))
    with flight.plan.open("a") as plan:
        plan.write('\n[models.added]\nsource = "added.onnx"\nprecision = "fp32"\ndeadline_ms = 300\n')
    with flight.fly("life2.log", awaits=READY) as life:
        life.wait_until_said(WAIT_S)
        assert life.terminate(WAIT_S) == 0
        assert "C7 engine missing from the generation in flight; backbone=added" in life.tail
    assert [m.model for m in of(flight.recorded(2), EngineLoaded) if isinstance(m, EngineLoaded)] == list(MODELS)


@pytest.mark.parametrize(
    ("check_at_import", "refusal"),
    [
        ("", "[consumers.failing] failing: Failing cannot be constructed: OSError: its map cannot be read"),
        ("check()", "[consumers.failing] class: {module} cannot be imported: OSError: its map cannot be read"),
    ],
)
def test_a_consumer_that_cannot_be_had_refuses_a_takeoff_and_costs_only_itself_in_the_air(
    flight: Flight, check_at_import: str, refusal: str, capfd: pytest.CaptureFixture[str]
) -> None:
    module = f"failing{len(check_at_import)}"  # a module that was imported once is not looked for again
    (flight.folder / f"{module}.py").write_text(FAILING.format(check_at_import=check_at_import))
    trouble = flight.folder / "trouble"
    with flight.plan.open("a") as plan:
        plan.write(f'[consumers.failing]\nclass = "{module}:Failing"\n')
    trouble.touch()
    assert main(["fly", str(flight.plan), "--for", "1"]) == 2
    refusal = refusal.format(module=module)
    assert refusal in capfd.readouterr().err
    trouble.unlink()
    assert main(["fly", str(flight.plan), "--for", "0.1"]) == 0
    with Journal.open(flight.folder / "state") as journal:
        journal.append(AirborneDeclared(1))
    trouble.touch()
    with flight.fly("recovered.log", awaits=READY) as life:
        life.wait_until_said(WAIT_S)
        life.flies_on(1.0)
        assert life.terminate(WAIT_S) == 0
    [recording] = (flight.folder / "recordings").glob("*-life0002.mcap")
    reports = [each.message for each in read_recording(recording) if isinstance(each.message, ConsumerReported)]
    assert {report.consumer for report in reports if report.good} == {"doubler", "shared"}
    [said] = {report.detail for report in reports if report.consumer == "failing"}
    assert said.startswith(refusal)


def test_takeoff_is_refused_for_an_engine_with_one_flipped_bit(
    flight: Flight, capfd: pytest.CaptureFixture[str]
) -> None:
    [engine] = (flight.folder / "engines").glob("gen-*/normal__*.engine")
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.write_bytes(data)
    assert main(["preflight", str(flight.plan)]) == 1
    assert main(["fly", str(flight.plan), "--for", "1"]) == 1
    assert engine.name in capfd.readouterr().err


def test_takeoff_is_refused_for_a_source_that_changed_after_provisioning(
    flight: Flight, capfd: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(flight.folder / "urgent.onnx")
    model.doc_string = "retrained"
    onnx.save(model, flight.folder / "urgent.onnx")
    assert main(["fly", str(flight.plan), "--for", "1"]) == 1
    text = capfd.readouterr().err
    assert "urgent" in text
    assert "c7 provision" in text


def test_preflight_says_go_and_shows_why(flight: Flight, capfd: pytest.CaptureFixture[str]) -> None:
    # Ten seconds for a frame: a go on a busy machine too.
    flight.plan.write_text(flight.plan.read_text().replace("rate_hz = 20.0", "rate_hz = 0.1"))
    assert main(["preflight", str(flight.plan), "--json"]) == 0
    verdict = json.loads(capfd.readouterr().out)
    assert verdict["go"] is True
    assert {engine["model"] for engine in verdict["engines"]} == set(MODELS)
    assert {engine["self_test"] for engine in verdict["engines"]} == {"passed"}
    assert all(engine["runs"] >= 20 for engine in verdict["engines"])
    assert not any(step["estimated"] for step in verdict["memory"]["steps"])
    assert verdict["frame_period_ms"] == 10_000.0


def test_a_takeoff_for_which_the_memory_does_not_last_is_refused_before_anything_is_loaded(
    flight: Flight, capfd: pytest.CaptureFixture[str]
) -> None:
    flight.plan.write_text(
        flight.plan.read_text().replace('name = "test"', 'name = "test"\nmemory_reserve_mb = 999999999')
    )
    assert main(["preflight", str(flight.plan), "--json"]) == 1
    verdict = json.loads(capfd.readouterr().out)
    assert verdict["go"] is False
    assert verdict["engines"] == []
    assert [step["model"] for step in verdict["memory"]["steps"]] == list(MODELS)
    assert main(["fly", str(flight.plan), "--for", "1"]) == 1
    assert "takeoff refused before anything was loaded" in capfd.readouterr().err
    assert not (flight.folder / "recordings").exists()


def test_declaring_without_a_flight_process_says_what_to_do(flight: Flight, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["declare", "airborne", "--flight", str(flight.plan)]) == 1
    assert "c7 fly" in capfd.readouterr().err


def test_landing_without_having_been_airborne_is_refused(flight: Flight, capfd: pytest.CaptureFixture[str]) -> None:
    with flight.fly("life1.log") as life:
        life.wait_until_said(WAIT_S)
        assert main(["declare", "landed", "--flight", str(flight.plan)]) == 1
        assert "never declared airborne" in capfd.readouterr().err
        assert life.terminate(WAIT_S) == 0
