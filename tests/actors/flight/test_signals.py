"""Signals become messages, and a process that cannot take them can still be ended."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from actors.flight.signals import STOP_SIGNALS, StopSignals


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_each_signal_is_a_message_by_its_name(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # whoever started the tests may have it ignored, as nohup does
    try:
        with StopSignals() as stop:
            assert stop.wait(0.0) is None
            signal.raise_signal(number)
            assert stop.wait(0.0) == number.name
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_hangup_that_was_ignored_stays_ignored() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.wait(0.0) is None
    finally:
        signal.signal(signal.SIGHUP, former)


def test_a_signal_that_nobody_takes_lets_the_next_one_end_the_process() -> None:
    program = """
import signal
from actors.flight.signals import StopSignals
with StopSignals():
    signal.raise_signal(signal.SIGINT)
    print("still here", flush=True)
    signal.raise_signal(signal.SIGTERM)
    print("never said", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    assert ended.stdout == "still here\n"
    assert ended.returncode == -signal.SIGTERM
