"""What TensorRT says of one engine while something is asked of it: its log and its error recorder together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

from messages import C7Error, DeviceContextError, DeviceFaultError, InvalidInputError
from messages.errors import describe_error
from runtimes.cuda.port import Cuda
from runtimes.cuda.release import release_all
from runtimes.tensorrt.error_recorder import make_error_recorder
from runtimes.tensorrt.faults import error_of_load, error_of_run, words_of
from runtimes.tensorrt.log import Listener, TensorrtLine, TensorrtLog


class EngineReports:
    """One thread at a time listens. `recorder` belongs to the engine, and its contexts inherit it."""

    def __init__(self, trt: ModuleType, log: TensorrtLog, subject: str) -> None:
        self.subject = subject
        self.recorder = make_error_recorder(trt)
        self._log = log
        self._heard: Listener | None = None

    @contextmanager
    def listening(self, *, this_thread_only: bool = True) -> Iterator[None]:
        """From here on everything that is said counts, and nothing that was said before."""
        self.recorder.recorded.clear()
        with self._log.listening("WARNING", this_thread_only=this_thread_only) as self._heard:
            try:
                yield
            finally:
                self._heard = None

    def require(self, succeeded: bool, what: str) -> None:
        """Raises the typed error of a call that did not do its work."""
        if not succeeded:
            raise self.error_of_run(what)

    def require_silence(self, what: str) -> None:
        """Raises where an error was recorded though every call said that it succeeded: TensorRT allows itself that."""
        if self.recorder.recorded.count():
            raise self.error_of_run(what)

    def words(self) -> str:
        """What is said since it is listened to, in TensorRT's own words."""
        return words_of(self._lines(), self.recorder.recorded.all())

    def error_of_run(self, what: str) -> C7Error:
        return error_of_run(self.subject, what, self._lines(), self.recorder.recorded.all())

    def error_of_load(self) -> C7Error:
        return error_of_load(self.subject, self._lines(), self.recorder.recorded.all())

    def _lines(self) -> tuple[TensorrtLine, ...]:
        return () if self._heard is None else self._heard.lines


def raise_what_is_graver(cuda: Cuda, error: BaseException) -> None:
    """Ask the device whether it still answers. Raises what it says where more than one engine is lost; else nothing.

    TensorRT's words seldom say it: after a sticky error each of its calls fails in words of its own.
    """
    if not isinstance(error, (DeviceFaultError, DeviceContextError, InvalidInputError)):
        settle_after(error, [cuda.check])


def settle_after(error: BaseException, steps: Iterable[Callable[[], None]]) -> None:
    """Carry out all steps while `error` is on its way, which stays the story unless the device turns out to be lost.

    Raises that: DeviceFaultError or DeviceContextError.
    """
    try:
        release_all(steps)
    except (DeviceFaultError, DeviceContextError) as graver:
        if not isinstance(error, DeviceFaultError):
            raise type(graver)(f"{graver}; it was found after: {describe_error(error)}") from error
    except C7Error:
        return
