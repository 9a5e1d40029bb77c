"""Calls of `cuda.bindings.runtime` whose every result is looked at."""

from __future__ import annotations

from types import ModuleType
from typing import SupportsInt, cast

from messages import C7Error, InferenceError
from runtimes.cuda.port import CaptureRefusedError
from runtimes.cuda_errors import error_of_cuda

_CAPTURE_CODES = range(900, 909)
"""cudaErrorStreamCaptureUnsupported to cudaErrorStreamCaptureWrongThread (`driver_types.h`, CUDA 12.6)."""


class CudaCalls:
    """The calls of one device. `subject` opens every error's text."""

    def __init__(self, library: ModuleType, subject: str) -> None:
        self.library = library
        self.subject = subject

    def call(self, name: str, *arguments: object) -> tuple[SupportsInt, ...]:
        """What the call returns behind its error. Raises what that error means."""
        code, values = self.attempt(name, *arguments)
        if code:
            raise self.error(name, code)
        return values

    def number(self, name: str, *arguments: object) -> int:
        """The one value of a call: an address, a handle or a count."""
        (value,) = self.call(name, *arguments)
        return int(value)

    def attempt(self, name: str, *arguments: object) -> tuple[int, tuple[SupportsInt, ...]]:
        """CUDA's code and the values, which mean something where the code is 0."""
        try:
            code, *values = getattr(self.library, name)(*arguments)
        except ValueError as error:
            # Its enum refuses a number that its own CUDA does not list; a newer driver may return one.
            raise InferenceError(
                f"{self.subject}: {name} failed with an error that this cuda-bindings does not know ({error}); install"
                " one that is as new as the driver"
            ) from error
        return int(code), tuple(cast("list[SupportsInt]", values))

    def error(self, name: str, code: int) -> C7Error:
        """The typed error of a code that a call returned, with CUDA's own words and name for it."""
        words, title = self.words(code), self.title(code)
        if code in _CAPTURE_CODES:
            return CaptureRefusedError(
                f"{self.subject}: {name}: {words}; {title} ({code}): this work cannot become a graph; fly without one"
            )
        found = error_of_cuda(self.subject, f"{name}: {words}", code)
        if found is not None:
            return found
        return InferenceError(
            f"{self.subject}: {name}: {words}; {title} ({code}): CUDA does not say whether it passes; check the device"
        )

    def words(self, code: int) -> str:
        return self._text("cudaGetErrorString", code)

    def title(self, code: int) -> str:
        return self._text("cudaGetErrorName", code)

    def _text(self, name: str, code: int) -> str:
        _, text = getattr(self.library, name)(self.library.cudaError_t(code))
        return bytes(text).decode(errors="replace")
