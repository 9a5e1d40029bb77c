"""A bounded wait for a source that may hang for ever."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from messages import TelemetryUnavailableError, describe_error
from telemetry.thermal_sources.source import ThermalReading, ThermalSource


class Sampler(Protocol):
    def sample(self) -> ThermalReading:
        """Read now. Raises TelemetryUnavailableError."""
        ...


class InlineSampler:
    """Reads on the caller's own thread, for as long as it takes: for a source that cannot hang, such as a trace."""

    def __init__(self, source: ThermalSource) -> None:
        self._source = source

    def sample(self) -> ThermalReading:
        """Read now. Raises TelemetryUnavailableError for a source that fails."""
        try:
            return self._source.read()
        except Exception as error:
            raise _failed(self._source, describe_error(error)) from error


class _Attempt:
    """One read on a thread of its own. A daemon: a read that never returns does not keep the process alive."""

    def __init__(self, source: ThermalSource) -> None:
        self.done = threading.Event()
        self.reading: ThermalReading | None = None
        self.cause = "the reading thread ended without an answer"
        threading.Thread(target=self._read, args=(source,), name="c7-thermal-read", daemon=True).start()

    def _read(self, source: ThermalSource) -> None:
        try:
            self.reading = source.read()
        except Exception as error:  # noqa: BLE001 (a source's fault, whatever it is, is a missing sample and not our end)
            self.cause = describe_error(error)
        finally:
            self.done.set()


class ThermalSampler:
    """Reads `source` in bounded time. While a read hangs no other is started: there is never more than one thread.

    Used by one thread at a time.
    """

    def __init__(self, source: ThermalSource, timeout_s: float) -> None:
        self._source = source
        self._timeout_s = timeout_s
        self._hung: _Attempt | None = None

    def sample(self) -> ThermalReading:
        """Read now. Raises TelemetryUnavailableError for a source that fails, or has not answered in `timeout_s`."""
        deadline_s = time.monotonic() + self._timeout_s
        if self._hung is not None:
            if not self._hung.done.wait(self._timeout_s):
                raise self._hangs()
            self._hung = None  # its late answer is of the past and is dropped
        try:
            attempt = _Attempt(self._source)
        except RuntimeError as error:  # what CPython raises when the system has no thread left to give
            raise TelemetryUnavailableError(f"{self._source.name} was not read: {describe_error(error)}") from error
        if not attempt.done.wait(max(0.0, deadline_s - time.monotonic())):
            self._hung = attempt
            raise self._hangs()
        if attempt.reading is None:
            raise _failed(self._source, attempt.cause)
        return attempt.reading

    def _hangs(self) -> TelemetryUnavailableError:
        return TelemetryUnavailableError(
            f"{self._source.name} hung: expected a reading within {self._timeout_s:g} s, still waiting for it"
        )


def _failed(source: ThermalSource, cause: str) -> TelemetryUnavailableError:
    return TelemetryUnavailableError(f"{source.name} failed: {cause}")
