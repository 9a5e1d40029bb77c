"""The typed errors that runtimes raise and actors turn into messages.

Every text says what was expected, what was found, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from messages.infer import RejectReason

DETAIL_MAX_CHARS = 1_000
"""Longest free text that a message carries: a message's size stays bounded whatever a library prints."""


class C7Error(Exception):
    """Root of every error that this project raises on purpose; anything else is a programming error."""


class ConfigError(C7Error):
    """A flight plan, a configuration or a flag cannot be used as written."""


class EngineBuildError(C7Error):
    """A source model could not be compiled. Takeoff stays blocked; no other runtime is tried."""


class CalibrationCacheError(C7Error):
    """An INT8 calibration cache is not the one that its dataset, source and calibrator produced."""


class EngineDeserializeError(C7Error):
    """An engine file is missing, altered, built for another host, or refused by its library."""


class CorruptEngineError(EngineDeserializeError):
    """An engine's files are not what was signed off: missing, altered or replaced. Reading again changes nothing."""


class SelfTestError(EngineDeserializeError):
    """A loaded engine does not give its known answers."""


class ManifestSignatureError(C7Error):
    """A manifest is not signed with the configured key, or an older one than was accepted before."""


class EngineStoreError(C7Error):
    """The engine store cannot be read or written; what was committed before is untouched."""


class InferenceError(C7Error):
    """A run failed inside the runtime; the engine that raised it is not trusted with the next frame."""


class InvalidInputError(InferenceError):
    """The inputs do not fit the engine (name, dtype or shape). The engine never saw them and lives on."""


class TransientInferenceError(InferenceError):
    """A run failed, and what failed is over with it: the library says so, and the engine may run the next frame."""


class DeviceContextError(InferenceError):
    """The device's context is lost with everything loaded into it; a new one can be made in this process."""


class DeviceFaultError(InferenceError):
    """The device answers this process no more, as after a sticky CUDA error: only a new process can use it."""


class RequestRejectedError(InferenceError):
    """No result for one call of a supervised runtime, for a `reason` that lies outside its run.

    `detail` is what the rejection itself says of it, without the model, consumer and frame of the text.
    `inputs_released` is False where an engine may still be reading the inputs: leave those arrays alone.
    """

    def __init__(self, reason: RejectReason, text: str, *, detail: str = "", inputs_released: bool = True) -> None:
        super().__init__(text)
        self.reason = reason
        self.detail = detail
        self.inputs_released = inputs_released


class OutOfMemoryError(C7Error):
    """Host or device memory ran out, in a run or in a load. The runtime has given back what it only kept for later."""


class TelemetryUnavailableError(C7Error):
    """The thermal source is missing, hung or stale."""


class RuntimeNotAvailableError(C7Error):
    """The configured runtime, device or provider cannot run here; none is taken in its place."""


class TakeoffRefusedError(C7Error):
    """Not every engine is verified and loaded. The text names each one that is not, and why."""


class JournalError(C7Error):
    """The flight journal is damaged, or a record could not be brought to disk."""


class FlightProcessError(C7Error):
    """The flight process cannot be reached, or another one holds the state folder."""


class BlockingCallError(C7Error):
    """A wait for an outcome was begun on the thread of one of our own actors, whose mail would lie unanswered."""


class WireFormatError(C7Error):
    """Bytes that claim to be a message are too long, malformed or of the wrong type."""


def printable(text: str, max_chars: int | None = None) -> str:
    """Text that somebody else wrote, fit for an error, a log and a terminal: on one line, and nothing steers either.

    Line ends, escape sequences, marks that turn the direction of writing, and a file name's bytes that are no text
    are written as escapes. At most `max_chars` are left, where given.
    """
    clipped = text if max_chars is None or len(text) <= max_chars else text[: max_chars - 1] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in clipped)


def printable_lines(text: str) -> str:
    """As `printable`, of a text that has lines of its own, such as a table."""
    return "\n".join(printable(line) for line in text.split("\n"))


def describe_error(error: BaseException) -> str:
    """One bounded line for messages and logs: the error's own text, with its type where the type says more."""
    text = printable(" ".join(str(error).split()))
    line = text if isinstance(error, C7Error) and text else f"{type(error).__name__}: {text}"
    return line if len(line) <= DETAIL_MAX_CHARS else line[: DETAIL_MAX_CHARS - 1] + "…"
