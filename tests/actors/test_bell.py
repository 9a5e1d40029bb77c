"""What wakes an actor: heard once, also where it was rung too early, and no descriptor is left behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from loguru import logger

from actors.bell import UNHEARD, Bell, PipeBell, SignalBell, hang_bell
from actors.mailbox import Mailbox
from actors.scheduling import THREADS, Signal

WAIT_S = 20.0
BELLS: tuple[Callable[[], Bell], ...] = (PipeBell, lambda: SignalBell(threading.Lock()))


class CountingScheduling:
    """Not threads: its signals are counted."""

    def __init__(self) -> None:
        self.made = 0

    def signal(self) -> Signal:
        self.made += 1
        return threading.Lock()

    def current(self) -> int:
        return 0

    def start(self, loop: Callable[[], None], name: str) -> None:
        raise NotImplementedError


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def hears(bell: Bell) -> threading.Event:
    """Wait for the bell on a thread of its own; the event says that it was heard."""
    heard = threading.Event()

    def listen() -> None:
        bell.wait()
        heard.set()

    threading.Thread(target=listen, daemon=True).start()
    return heard


@pytest.mark.parametrize("hang", BELLS)
def test_a_bell_wakes_whoever_waits_for_it(hang: Callable[[], Bell]) -> None:
    bell = hang()
    for _ in range(100):
        heard = hears(bell)
        bell.ring()
        assert heard.wait(WAIT_S)


@pytest.mark.parametrize("hang", BELLS)
def test_a_bell_that_is_rung_before_anybody_waits_is_heard_once(hang: Callable[[], Bell]) -> None:
    bell = hang()
    bell.ring()
    bell.ring()
    bell.wait()
    heard = hears(bell)
    assert not heard.wait(0.02)
    bell.ring()
    assert heard.wait(WAIT_S)


def test_a_pipe_bell_gives_its_descriptors_back_when_nobody_holds_it() -> None:
    before = open_files()
    bell = PipeBell()
    assert open_files() == before + 2
    del bell
    assert open_files() == before


def test_a_process_without_descriptors_hangs_a_bell_without_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe", none_left)
    said: list[str] = []
    handler = logger.add(lambda line: said.append(str(line)), format="{message}")
    bell = hang_bell(THREADS)
    logger.remove(handler)
    assert "woken by a lock" in said[0]
    assert "Too many open files" in said[0]
    heard = hears(bell)
    bell.ring()
    assert heard.wait(WAIT_S)


def test_where_actors_do_not_run_on_threads_their_bells_are_signals() -> None:
    scheduling = CountingScheduling()
    before = open_files()
    assert isinstance(hang_bell(scheduling), SignalBell)
    assert (scheduling.made, open_files()) == (1, before)


def test_a_mailbox_that_closed_keeps_no_descriptor_and_nobody_is_hurt_by_ringing() -> None:
    before = open_files()
    mailbox = Mailbox()
    assert open_files() == before + 2
    mailbox.close()
    assert open_files() == before
    UNHEARD.ring()
    UNHEARD.ring()
