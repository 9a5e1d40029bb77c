"""Giving back several things, of which none may keep the others from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from messages import C7Error, DeviceContextError, DeviceFaultError

_GRAVEST = (DeviceFaultError, DeviceContextError, C7Error)


def release_all(steps: Iterable[Callable[[], None]]) -> None:
    """Carry out every step in order, then raise the gravest error that one raised: a device's fault before all.

    The others are told in number: after a sticky error each call says the same. None is held by this frame, which
    its traceback holds: what the frames of such a circle use would stay until the collector comes.
    """
    errors: list[C7Error] = []
    for step in steps:
        try:
            step()
        except C7Error as error:  # noqa: PERF203 - each step is a call of its own
            errors.append(error)
    if not errors:
        return
    gravest = min(errors, key=lambda error: next(rank for rank, kind in enumerate(_GRAVEST) if isinstance(error, kind)))
    others = len(errors) - 1
    errors.clear()
    try:
        if not others:
            raise gravest
        raise type(gravest)(f"{gravest} ({others} more failed to be given back)") from gravest
    finally:
        del gravest
