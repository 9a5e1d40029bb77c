"""Which typed error it is that torch raised: in a load, in a run, or while memory is given back.

CUDA's errors are `torch.AcceleratorError` with an `error_code` since torch 2.8, and RuntimeError with a text before.
"""

from __future__ import annotations

from messages import C7Error, InferenceError, InvalidInputError, OutOfMemoryError
from messages.errors import printable
from runtimes.cuda_errors import TEXT_MAX_CHARS, error_of_cuda

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")
_GUARD_FAILED = ("Guard failed", "Expected input at")
"""How the program's own input guards begin: torch 2.9 and newer, and older ones. They run before anything else."""


def error_of_resource(subject: str, error: BaseException) -> C7Error | None:
    """What an error says of the memory or the device; None where it says nothing of either.

    `subject` is the model or file. A cause that torch or this project wrapped is looked at too.
    """
    each: BaseException | None = error
    while each is not None:
        text = str(each).strip()
        code = getattr(each, "error_code", None)
        found = error_of_cuda(subject, text, code if isinstance(code, int) else None)
        if found is not None:
            return found
        if isinstance(each, MemoryError) or any(mark in text for mark in _OUT_OF_MEMORY):
            return OutOfMemoryError(f"{subject}: {printable(text, TEXT_MAX_CHARS) or 'out of memory'}")
        each = each.__cause__
    return None


def error_of_run(model: str, error: BaseException) -> C7Error:
    """Which typed error a failed run is."""
    found = error_of_resource(model, error)
    if found is not None:
        return found
    text = printable(str(error).strip(), TEXT_MAX_CHARS)
    if text.startswith(_GUARD_FAILED):
        return InvalidInputError(f"{model}: the inputs do not fit the export: {text}")
    code = getattr(error, "error_code", None)
    return InferenceError(f"{model}: {type(error).__name__}{'' if code is None else f' {code}'}: {text}")
