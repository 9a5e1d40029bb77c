"""How far TensorRT's builder is, in words, and the way to end it early.

TensorRT calls from several threads, and takes an exception for the wish to end: it is remembered instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple, Protocol

from messages.errors import printable

PHASES_MAX = 16
"""Deepest nesting that is shown and kept. TensorRT's own is about four deep."""
_NAME_MAX_CHARS = 80


class Phase(NamedTuple):
    """`step` is the number of steps that are complete; `parent` is None for a phase of its own."""

    name: str
    parent: str | None
    steps: int
    step: int = 0


class BuildProgress:
    """The phases that TensorRT is in. Callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phases: dict[str, Phase] = {}

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            if len(self._phases) < PHASES_MAX:
                self._phases[name] = Phase(name, parent, steps)

    def complete(self, name: str, step: int) -> None:
        with self._lock:
            phase = self._phases.get(name)
            if phase is not None:
                self._phases[name] = phase._replace(step=step + 1)

    def finish(self, name: str) -> None:
        """What lies inside is over too: TensorRT may leave a phase without reporting all of it."""
        with self._lock:
            self._phases.pop(name, None)
            for inner in [phase.name for phase in self._phases.values() if phase.parent == name]:
                self._phases.pop(inner, None)

    def describe(self) -> str:
        """`Building Engine 1/4 > Tactic Selection 7/31`, "" outside of every phase."""
        with self._lock:
            phases = list(self._phases.values())
        return " > ".join(f"{printable(each.name, _NAME_MAX_CHARS)} {each.step}/{each.steps}" for each in phases)


class Monitor(Protocol):
    """What `progress_monitor` makes: an `IProgressMonitor`, with what came of the build."""

    progress: BuildProgress
    ended_because: str
    """Why the build was ended early, "" where it was not."""
    failure: BaseException | None
    """What a callback of ours raised; the build was ended for it."""


def progress_monitor(
    trt: ModuleType, cancelled: Callable[[], str] = str, tell: Callable[[str], None] | None = None
) -> Monitor:
    """An `IProgressMonitor`. `cancelled` is asked after each step, and ends the build with the reason that it gives.

    `tell` hears of each step what `BuildProgress.describe` says. Both are called from TensorRT's threads.
    """

    class ProgressMonitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.progress = BuildProgress()
            self.ended_because = ""
            self.failure: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._safely(lambda: self.progress.start(phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._safely(lambda: self._stepped(phase_name, step))
            return self.failure is None and not self.ended_because

        def phase_finish(self, phase_name: str) -> None:
            self._safely(lambda: self.progress.finish(phase_name))

        def _stepped(self, name: str, step: int) -> None:
            self.progress.complete(name, step)
            if tell is not None:
                tell(self.progress.describe())
            self.ended_because = self.ended_because or cancelled()

        def _safely(self, call: Callable[[], None]) -> None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - TensorRT would print it and go on, or end without a word
                self.failure = self.failure or error

    monitor: Monitor = ProgressMonitor()
    return monitor
