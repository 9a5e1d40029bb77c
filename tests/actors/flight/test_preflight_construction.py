"""A rehearsal constructs what will fly: a camera or a component that cannot be had is a no-go on the ground."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.flight.preflight import Verdict, rehearse
from messages import ConfigError, VirtualClock
from runtimes import BuildConfig, EngineCacheEntry, FakeRuntime, FlightPlan, read_flight_plan, returns
from runtimes.available_memory import AvailableMemory
from runtimes.memory_budget import MIB, plan_memory

RESULT = {"y": np.zeros(1, np.float32)}
PLENTY = plan_memory([], AvailableMemory(host_bytes=1024 * MIB), reserve_mb=256)
MODULE = """
import threading
import weakref
from pathlib import Path
from runtimes import deserialize_cached_engine, read_entry

constructed = []  # (name, weak reference, thread)
asked = []

class Noted:
    def __init__(self):
        constructed.append((type(self).__name__, weakref.ref(self), threading.current_thread()))

class Camera(Noted):
    def __init__(self, *, device="/dev/video0"):
        if device == "":
            raise SystemExit(0)
        if device == "nowhere":
            raise OSError(19, "No such device")
        super().__init__()
    def read(self, frame_id):
        raise AssertionError("a rehearsal reads no frame")

class Looker(Noted):
    def __init__(self, c7_inference, *, engine="", map_path=""):
        if map_path == "missing":
            raise OSError("its map cannot be read")
        super().__init__()
        self.runtime = c7_inference
        self.handle = deserialize_cached_engine(c7_inference, read_entry(Path(engine))) if engine else None
    def on_frame(self, frame):
        raise AssertionError("a rehearsal gives no frame")
    def __del__(self):
        if getattr(self, "handle", None) is not None:
            asked.append(self.runtime.infer(self.handle, {}))

class Matcher(Noted):
    def __init__(self, c3_lightglue_runtime):
        super().__init__()
        self.lightglue = c3_lightglue_runtime
        lightglues.append(c3_lightglue_runtime)
    def on_frame(self, frame):
        raise AssertionError("a rehearsal gives no frame")

lightglues = []
"""
PLAN = """
[flight]
name = "test"
lightglue = "vpr"
[runtime]
runtime = "onnx_trt_ep"
provider = "cpu"
[models.vpr]
source = "vpr.onnx"
precision = "fp32"
deadline_ms = 200
[frames]
source = "rehearsed:Camera"
rate_hz = 3.0
"""
LOOKER = '[consumers.{name}]\nclass = "rehearsed:Looker"\noptions = {{ map_path = "{map_path}" }}\n'


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "rehearsed.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("rehearsed")
    del sys.modules["rehearsed"]


def plan_of(folder: Path, rest: str = "", camera: str = "") -> FlightPlan:
    (folder / "flight.toml").write_text(PLAN + camera + rest)
    return read_flight_plan(folder / "flight.toml")


class Rehearsed:
    """One engine on a FakeRuntime whose clock only its runs would move."""

    def __init__(self, folder: Path) -> None:
        self.fake = FakeRuntime({"vpr": [returns(RESULT)]}, clock=VirtualClock())
        (folder / "vpr.onnx").write_bytes(b"a model")
        entry = self.fake.compile_engine(folder / "vpr.onnx", BuildConfig(precision="fp16"))
        self.entries: dict[str, EngineCacheEntry] = {"vpr": entry}

    def verdict(self, plan: FlightPlan) -> Verdict:
        return rehearse(plan, self.fake, self.entries, PLENTY, VirtualClock())


def test_what_flies_is_constructed_as_at_a_takeoff_and_given_no_frame(tmp_path: Path, module: Any) -> None:
    consumers = LOOKER.format(name="a", map_path="") + LOOKER.format(name="b", map_path="")
    assert Rehearsed(tmp_path).verdict(plan_of(tmp_path, consumers)).go
    assert [name for name, _, _ in module.constructed] == ["Camera", "Looker", "Looker"]
    assert {thread for _, _, thread in module.constructed} == {threading.main_thread()}


def test_every_component_that_cannot_be_constructed_is_named_and_the_engines_are_measured_all_the_same(
    tmp_path: Path, module: Any
) -> None:
    consumers = "".join(
        LOOKER.format(name=name, map_path=map_path)
        for name, map_path in (("a", "missing"), ("b", "there"), ("c", "missing"))
    )
    verdict = Rehearsed(tmp_path).verdict(plan_of(tmp_path, consumers, camera='options = { device = "nowhere" }\n'))
    assert not verdict.go
    looker = "Looker cannot be constructed: OSError: its map cannot be read"
    assert verdict.problems == (
        "[frames] source: rehearsed:Camera cannot be constructed: OSError: [Errno 19] No such device",
        f"[consumers.a] a: {looker}",
        f"[consumers.c] c: {looker}",
    )
    assert [name for name, _, _ in module.constructed] == ["Looker"], "b, which nothing is wrong with"
    assert verdict.engines[0].runs > 0


def test_a_constructor_that_would_end_the_process_with_success_is_a_no_go(tmp_path: Path) -> None:
    verdict = Rehearsed(tmp_path).verdict(plan_of(tmp_path, camera='options = { device = "" }\n'))
    assert verdict.problems == ("[frames] source: rehearsed:Camera cannot be constructed: SystemExit: 0",)


def test_consumers_share_one_lightglue_on_the_engine_that_is_loaded_already(tmp_path: Path, module: Any) -> None:
    matchers = "".join(f'[consumers.{name}]\nclass = "rehearsed:Matcher"\n' for name in ("c2_5_rerank", "c3_matcher"))
    rehearsed = Rehearsed(tmp_path)
    assert rehearsed.verdict(plan_of(tmp_path, matchers)).go
    first, second = module.lightglues
    assert first is second
    assert rehearsed.fake.loads("vpr") == 1


def test_components_take_their_memory_while_the_engines_run_and_are_let_go_before_these_stop(
    tmp_path: Path, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsed = Rehearsed(tmp_path)
    alive: list[bool] = []
    infer = rehearsed.fake.infer

    def infer_and_note(*arguments: Any) -> Any:
        alive.append(all(reference() is not None for _, reference, _ in module.constructed))
        return infer(*arguments)

    monkeypatch.setattr(rehearsed.fake, "infer", infer_and_note)
    section = '[consumers.a]\nclass = "rehearsed:Looker"\nengines = { engine = "vpr" }\n'
    verdict = rehearsed.verdict(plan_of(tmp_path, section))
    gc.collect()
    assert verdict.go
    assert all(alive)
    assert [reference() for _, reference, _ in module.constructed] == [None, None]
    assert [set(outputs) for outputs in module.asked] == [{"y"}], "its engine still answered when it was let go"
    assert rehearsed.fake.loaded == ()


def test_where_the_memory_does_not_last_nothing_is_constructed(tmp_path: Path, module: Any) -> None:
    rehearsed = Rehearsed(tmp_path)
    short = plan_memory(list(rehearsed.entries.values()), AvailableMemory(host_bytes=1), reserve_mb=1)
    plan = plan_of(tmp_path, LOOKER.format(name="a", map_path=""))
    assert not rehearse(plan, rehearsed.fake, rehearsed.entries, short).go
    assert module.constructed == []


def test_a_plan_that_no_flight_would_be_composed_from_constructs_nothing(tmp_path: Path, module: Any) -> None:
    consumers = LOOKER.format(name="a", map_path="") + '[consumers.b]\nclass = "rehearsed:Camera"\n'
    with pytest.raises(ConfigError, match=r"\[consumers.b\] class: rehearsed:Camera has no method on_frame"):
        Rehearsed(tmp_path).verdict(plan_of(tmp_path, consumers))
    assert "Looker" not in [name for name, _, _ in module.constructed]
