"""The end of a supervision: from any thread, halfway through its start, with the interpreter, and in the middle of a
call that the user interrupts."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
import pykka
import pytest
from loguru import logger

import actors.thermal
from actors import Supervision, supervise
from actors.ledger import UNKNOWN_MODEL
from actors.supervised import await_end
from actors.thermal import ThermalActor
from messages import EngineDied, InferCompleted, InferenceError, InferRejected, Message, Outcome, Tensor
from runtimes import EngineHandle, FakeRuntime, blocks_until, computes, raises, returns
from telemetry import ThermalReading

WAIT_S = 20.0
IMAGE = {"image": np.ones(4, np.float32)}
RESULT = {"descriptor": np.arange(3, dtype=np.float32)}


class SlowToRelease(FakeRuntime):
    """Frees its engines only when told to."""

    releasing = threading.Event()
    go = threading.Event()

    def release_engine(self, handle: EngineHandle) -> None:
        self.releasing.set()
        assert self.go.wait(WAIT_S)
        super().release_engine(handle)


class Heatless:
    """A thermal source that works."""

    name = "heatless"

    def read(self) -> ThermalReading:
        return ThermalReading(cpu_temp_c=20.0, gpu_temp_c=20.0, gpu_clock_mhz=1000)


def ended(before: set[threading.Thread]) -> bool:
    """Whether every thread that is new since `before` ends by itself."""
    for thread in set(threading.enumerate()) - before:
        thread.join(WAIT_S)
    return set(threading.enumerate()) <= before


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_second_stop_waits_for_the_first_one() -> None:
    fake = SlowToRelease({"vpr": returns(RESULT)})
    c7 = supervise(fake, fake.entries())
    loaded_at_return: list[tuple[str, ...]] = []

    def stop() -> None:
        c7.stop()
        loaded_at_return.append(fake.loaded)

    first, second = (threading.Thread(target=stop, daemon=True) for _ in range(2))
    first.start()
    assert fake.releasing.wait(WAIT_S)
    second.start()
    second.join(0.1)  # a stop that does not wait is back by now
    fake.go.set()
    first.join(WAIT_S)
    second.join(WAIT_S)
    assert loaded_at_return == [(), ()]


def test_a_stop_from_the_supervisors_own_thread_does_not_wait_for_itself() -> None:
    flown: list[Supervision] = []
    stopped = threading.Event()
    errors: list[str] = []
    sink = logger.add(lambda line: errors.append(str(line)), level="ERROR", format="{message}")

    def record(message: Message) -> None:
        if isinstance(message, EngineDied) and flown:
            flown[0].stop()
            stopped.set()

    fake = FakeRuntime({"vpr": [raises(InferenceError("716")), returns(RESULT)], "match": returns(RESULT)})
    flown.append(supervise(fake, fake.entries(), record=record))
    flown[0].infer("vpr", IMAGE, within_ms=WAIT_S * 1000)
    assert stopped.wait(WAIT_S)
    assert await_end(flown[0]._supervisor, WAIT_S)
    flown[0].stop()
    logger.remove(sink)
    assert fake.loaded == ()
    assert not [error for error in errors if "did not stop" in error]


@pytest.mark.parametrize("step", ["source", "actor"])
def test_a_start_that_fails_halfway_leaves_nothing_running(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError("halfway")

    if step == "source":
        monkeypatch.setattr(actors.thermal, "open_thermal_source", fail)
    else:
        monkeypatch.setattr(ThermalActor, "start", fail)
    before = set(threading.enumerate())
    fake = FakeRuntime({"vpr": returns(RESULT)})
    with pytest.raises(OSError, match="halfway"):
        supervise(fake, fake.entries(), thermal="auto" if step == "source" else Heatless())
    assert ended(before)
    assert fake.loaded == ()


def test_twenty_flights_leave_no_thread_no_file_and_no_actor_behind() -> None:
    before = set(threading.enumerate())
    files = open_files()
    for _ in range(20):
        fake = FakeRuntime({"vpr": [returns(RESULT), raises(InferenceError("716"))], "match": returns(RESULT)})
        with supervise(fake, fake.entries(), thermal=Heatless()) as c7:
            c7.infer("vpr", IMAGE, within_ms=WAIT_S * 1000)
            c7.infer("vpr", IMAGE, within_ms=WAIT_S * 1000)
        assert fake.loaded == ()
    assert ended(before)
    assert open_files() == files


HUNG_AT_EXIT = """
import atexit, threading
import numpy as np
from actors import supervise
from runtimes import FakeRuntime, blocks_until, returns

fake = FakeRuntime({"vpr": blocks_until(threading.Event(), returns({}))})
c7 = None
atexit.register(lambda: print([each.result().reason for each in pending], c7.tallies()["vpr"].open))
c7 = supervise(fake, fake.entries())
pending = [c7.submit("vpr", {"image": np.ones(4)}, within_ms=600_000) for _ in range(3)]
"""


def test_an_interpreter_that_ends_with_a_hung_engine_ends_all_the_same_and_answers_everybody() -> None:
    ran = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", HUNG_AT_EXIT],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert ran.stdout.strip() == "['shutting_down', 'shutting_down', 'shutting_down'] 0"


class Interrupt:
    """Raises KeyboardInterrupt on this thread before line number `at` of the message path, like Ctrl-C would.

    The line of a `with` is left out: CPython looks for signals after a call, so one that arrives while the block is
    being entered or left is delivered inside it or behind it.
    """

    PATH = ("client.py", "routes.py", "ledger.py", "pending.py", "mailbox.py", "shedding.py", "admission.py", "bell.py")

    def __init__(self, at: int) -> None:
        self._left = at
        self.raised = False

    def __enter__(self) -> Interrupt:
        sys.settrace(self._enter_frame)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _enter_frame(self, frame: FrameType, _event: str, _argument: Any) -> Callable[..., Any] | None:
        path = Path(frame.f_code.co_filename)
        return self._line if path.parent.name == "actors" and path.name in self.PATH else None

    def _line(self, frame: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
        if event == "line" and not self.raised and not _is_with(frame):
            self._left -= 1
            if self._left < 0:
                self.raised = True
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._line


def _is_with(frame: FrameType) -> bool:
    lines = Path(frame.f_code.co_filename).read_text().splitlines()
    return lines[frame.f_lineno - 1].lstrip().startswith("with ")


@pytest.mark.parametrize("call", ["infer", "infer_many", "submit to nobody", "expire", "cancel", "shed"])
def test_an_interrupt_anywhere_in_a_call_loses_no_request_and_no_engine(call: str) -> None:
    go, runs = threading.Event(), threading.Event()
    go.set()

    def run(_inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        runs.set()
        assert go.wait(WAIT_S)
        return RESULT

    fake = FakeRuntime({"vpr": computes(lambda inputs: inputs), "slow": computes(run)})
    with supervise(fake, fake.entries()) as c7:

        def interrupted(at: int) -> bool:
            if call in {"expire", "cancel", "shed"}:
                go.clear()
                runs.clear()
                held = [c7.submit("slow", IMAGE, within_ms=WAIT_S * 1000, frame_id=0)]
                assert runs.wait(WAIT_S)  # the others wait: the next frame sheds the first of them
                held += [c7.submit("slow", IMAGE, within_ms=WAIT_S * 1000, frame_id=frame) for frame in (1, 2)]
            interrupt = Interrupt(at)
            try:
                with interrupt:
                    if call == "infer":
                        c7.infer("vpr", IMAGE, within_ms=WAIT_S * 1000)
                    elif call == "infer_many":
                        c7.infer_many("vpr", [IMAGE] * 3, within_ms=WAIT_S * 1000)
                    elif call == "submit to nobody":
                        c7.submit("nobody", IMAGE, within_ms=WAIT_S * 1000)
                    elif call == "expire":
                        c7.infer("slow", IMAGE, within_ms=0.01, frame_id=2)
                    elif call == "cancel":
                        held[-1].cancel()
                    else:
                        c7.submit("slow", IMAGE, within_ms=WAIT_S * 1000, frame_id=3)
            except KeyboardInterrupt:
                pass
            finally:
                go.set()
            model = "slow" if call in {"expire", "cancel", "shed"} else "vpr"
            if model == "slow":
                assert all(getattr(each.result(), "reason", "") != "expired" for each in held), "somebody told them"
            assert isinstance(c7.infer(model, IMAGE, within_ms=WAIT_S * 1000, frame_id=9), InferCompleted)
            return interrupt.raised

        at = 0
        while interrupted(at):
            at += 1
        assert at > 10
        tallies = c7.tallies()
    assert {model: tally.open for model, tally in tallies.items()} == dict.fromkeys(tallies, 0)


class Told(pykka.ThreadingActor):
    """A consumer's own actor, which keeps what it is told."""

    use_daemon_thread = True

    def __init__(self, outcomes: list[Outcome]) -> None:
        super().__init__()
        self._outcomes = outcomes

    def on_receive(self, message: Any) -> None:
        if isinstance(message, InferCompleted | InferRejected):
            self._outcomes.append(message)


@pytest.mark.parametrize("model", ["vpr", "nobody"])
def test_an_interrupt_anywhere_in_send_leaves_one_outcome_for_the_actor_of_each_counted_request(model: str) -> None:
    outcomes: list[Outcome] = []
    fake = FakeRuntime({"vpr": computes(lambda inputs: inputs)})
    told = Told.start(outcomes)
    with supervise(fake, fake.entries()) as c7:

        def interrupted(at: int) -> bool:
            interrupt = Interrupt(at)
            try:
                with interrupt:
                    c7.send(model, IMAGE, within_ms=WAIT_S * 1000, reply_to=told)
            except KeyboardInterrupt:
                pass
            assert isinstance(c7.infer("vpr", IMAGE, within_ms=WAIT_S * 1000), InferCompleted)
            return interrupt.raised

        at = 0
        while interrupted(at):
            at += 1
        assert at > 10
        tallies = c7.tallies()
    told.ask("all told", timeout=WAIT_S)
    told.stop(timeout=WAIT_S)
    assert {name: tally.open for name, tally in tallies.items()} == dict.fromkeys(tallies, 0)
    assert len({outcome.request_id for outcome in outcomes}) == len(outcomes), "nobody is told twice"
    if model == "vpr":
        assert len(outcomes) == tallies["vpr"].submitted - (at + 1), "each iteration asked once more by `infer`"
    else:  # it is told on the interrupted thread, so the interrupt may take the place of the message
        assert 0 < len(outcomes) <= tallies[UNKNOWN_MODEL].submitted


def test_a_frame_that_is_interrupted_halfway_leaves_nothing_to_be_run() -> None:
    go = threading.Event()
    fake = FakeRuntime({"slow": blocks_until(go, returns(RESULT))})

    def batch() -> Iterator[dict[str, np.ndarray]]:
        for _ in range(5):
            yield IMAGE
        raise KeyboardInterrupt

    with supervise(fake, fake.entries()) as c7:
        with pytest.raises(KeyboardInterrupt):
            c7.infer_many("slow", cast("list[dict[str, Tensor]]", batch()), within_ms=WAIT_S * 1000)
        tally = c7.tallies()["slow"]
        assert (tally.submitted, tally.rejected) == (5, {"cancelled": 5})
        go.set()


def test_the_registry_forgets_every_actor_that_has_ended() -> None:
    before = len(pykka.ActorRegistry.get_all())
    fake = FakeRuntime({"vpr": returns(RESULT)})
    with supervise(fake, fake.entries()):
        pass
    assert len(pykka.ActorRegistry.get_all()) <= before
