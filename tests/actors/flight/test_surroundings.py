"""What would stop a flight besides its engines is found before anything is loaded, and by the plan's own key."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from loguru import logger

from actors.__main__ import main
from actors.flight.surroundings import check_memory, check_surroundings, load_order, memory_budget
from messages import ConfigError, MonotonicClock, RuntimeNotAvailableError, TakeoffRefusedError
from runtimes import FakeRuntime, FlightPlan, read_flight_plan, returns
from runtimes.available_memory import AvailableMemory
from runtimes.build_report import BuildReport
from runtimes.measurements import MemoryUse
from runtimes.memory_budget import MIB

FRAMES = '[frames]\nsource = "eyes:Camera"\nrate_hz = 3.0\n'
MODULE = """
class Camera:
    def read(self, frame_id):
        raise AssertionError("nothing is read, and nothing constructed")

class Looker:
    def __init__(self, client, threshold=1.0):
        raise AssertionError("nothing is constructed")
    def on_frame(self, frame): ...
"""


def check(folder: Path, flight: str = 'name = "test"', rest: str = "") -> None:
    (folder / "flight.toml").write_text(
        f'[flight]\n{flight}\n[runtime]\nruntime = "onnx_trt_ep"\nprovider = "cpu"\n'
        f'[models.vpr]\nsource = "vpr.onnx"\nprecision = "fp32"\ndeadline_ms = 200\n{rest}'
    )
    check_surroundings(read_flight_plan(folder / "flight.toml"), MonotonicClock())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "eyes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_plan_that_can_fly_passes_and_nothing_is_written_or_constructed(folder: Path) -> None:
    check(folder, rest=FRAMES + '[consumers.vpr]\nclass = "eyes:Looker"\noptions = { threshold = 2.0 }\n')
    assert not (folder / "state").exists()
    assert not (folder / "recordings").exists()


@pytest.mark.parametrize(
    ("flight", "rest", "said"),
    [
        ('name = "../x"', "", r"\[flight\] name"),
        ('name = "test"', '[consumers.vpr]\nclass = "eyes:Looker"\n', r"\[consumers\] expects \[frames\]"),
        ('name = "test"', FRAMES.replace("eyes", "nowhere"), r"\[frames\] source: nowhere cannot be imported"),
        ('name = "test"', FRAMES + '[consumers.vpr]\nclass = "eyes:Camera"\n', r"\[consumers.vpr\] class: .*on_frame"),
        (
            'name = "test"',
            FRAMES + '[consumers.vpr]\nclass = "eyes:Looker"\noptions = { treshold = 1 }\n',
            r"\[consumers.vpr\] options: .*treshold",
        ),
        ('name = "test"', '[thermal]\nsource = "replay"\ntrace = "none.jsonl"\n', "none.jsonl"),
        ('name = "test"\nrecordings = "eyes.py"', "", r"\[flight\] recordings: .*eyes.py is no folder"),
        ('name = "test"\nstate = "eyes.py/deeper"', "", r"\[flight\] state: .*eyes.py is no folder"),
    ],
)
def test_what_would_stop_the_flight_is_named_by_table_and_key(folder: Path, flight: str, rest: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check(folder, flight, rest)


def test_preflight_is_no_go_for_a_consumer_that_fly_would_not_find(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError):
        check(folder, rest=FRAMES + '[consumers.vpr]\nclass = "nowhere:Looker"\n')
    assert main(["preflight", str(folder / "flight.toml")]) == 2
    assert "[consumers.vpr] class: nowhere cannot be imported" in capfd.readouterr().err


needs_onnxruntime = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the plan's runtime is ONNX Runtime")
MODEL = '[models.{name}]\nsource = "{name}.onnx"\nprecision = "fp32"\ndeadline_ms = 200\npriority = {priority}\n'
FAKE = FakeRuntime({name: [returns({})] for name in ("vpr", "later", "first")})


def reserving(folder: Path, reserve_mb: int) -> FlightPlan:
    (folder / "flight.toml").write_text(
        f'[flight]\nname = "test"\nmemory_reserve_mb = {reserve_mb}\n[runtime]\nruntime = "onnx_trt_ep"\n'
        'provider = "cpu"\n'
        + "".join(MODEL.format(name=name, priority=20 if name == "later" else 10) for name in ("later", "vpr", "first"))
    )
    return read_flight_plan(folder / "flight.toml")


@needs_onnxruntime
def test_engines_load_by_priority_and_then_as_the_plan_names_them(folder: Path) -> None:
    plan = reserving(folder, 0)
    entries = {model: FAKE.entry(model) for model in plan.models}
    assert [entry.model for entry in load_order(plan, entries)] == ["vpr", "first", "later"]
    assert [step.model for step in memory_budget(plan, entries).steps] == ["vpr", "first", "later"]


@needs_onnxruntime
def test_a_takeoff_whose_engines_leave_no_reserve_is_refused(folder: Path) -> None:
    check_memory(reserving(folder, 0), FAKE.entries(), in_the_air=False)
    with pytest.raises(TakeoffRefusedError, match=r"memory_reserve_mb.*available are \d+ MiB: \d+ MiB are missing"):
        check_memory(reserving(folder, 10**9), FAKE.entries(), in_the_air=False)


def test_the_block_that_engines_share_is_reckoned_where_the_plan_has_them_share_one(
    trt: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = AvailableMemory(host_bytes=8000 * MIB, device_bytes=8000 * MIB)
    monkeypatch.setattr("actors.flight.surroundings.read_available_memory", lambda _config: available)
    report = BuildReport(
        builder="api",
        tensorrt="10.3.0",
        strongly_typed=False,
        optimization_level=3,
        flags=(),
        activation_bytes=(700 * MIB,),
    )
    use = MemoryUse(load_bytes=MIB, run_bytes=0, device_load_bytes=710 * MIB)
    entries = {name: msgspec.structs.replace(entry, build=report, memory=use) for name, entry in FAKE.entries().items()}
    peaks = []
    for sharing in ("false", "true"):
        reserving(folder, 0)
        text = (folder / "flight.toml").read_text().replace('"onnx_trt_ep"\nprovider = "cpu"', '"tensorrt"')
        (folder / "flight.toml").write_text(f"{text}[runtime.tensorrt]\nshare_activation_memory = {sharing}\n")
        plan = read_flight_plan(folder / "flight.toml")
        peaks.append([step.device_peak_bytes // MIB for step in memory_budget(plan, entries).steps])
    assert peaks == [[710, 1420, 2130], [710, 720, 730]]


@needs_onnxruntime
def test_in_the_air_short_memory_is_logged_and_nothing_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    sink = logger.add(lambda line: said.append(str(line)), level="ERROR", format="{message}")
    try:
        check_memory(reserving(folder, 10**9), FAKE.entries(), in_the_air=True)
        assert len(said) == 1
        assert "C7 memory may not last for all engines" in said[0]
        assert "memory_reserve_mb" in said[0]

        def unreadable(_config: object) -> None:
            raise RuntimeNotAvailableError("no MemAvailable here")

        monkeypatch.setattr("actors.flight.surroundings.read_available_memory", unreadable)
        check_memory(reserving(folder, 0), FAKE.entries(), in_the_air=True)
        assert "no MemAvailable here" in said[1]
        with pytest.raises(RuntimeNotAvailableError):
            check_memory(reserving(folder, 0), FAKE.entries(), in_the_air=False)
    finally:
        logger.remove(sink)
