"""Several things are given back, whatever one of them raises."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest

from messages import C7Error, DeviceContextError, DeviceFaultError, InferenceError
from runtimes.cuda.release import release_all


def raising(*errors: C7Error | None) -> tuple[list[int], list[Callable[[], None]]]:
    """Steps that raise these, and which of them were carried out."""
    done: list[int] = []

    def step(index: int, error: C7Error | None) -> Callable[[], None]:
        def carry_out() -> None:
            done.append(index)
            if error is not None:
                raise error

        return carry_out

    return done, [step(index, error) for index, error in enumerate(errors)]


def test_nothing_is_raised_where_nothing_failed() -> None:
    done, steps = raising(None, None)
    release_all(steps)
    release_all([])
    assert done == [0, 1]


def test_every_step_is_carried_out_though_an_earlier_one_failed() -> None:
    done, steps = raising(InferenceError("first"), None, None)
    with pytest.raises(InferenceError, match=r"^first$"):
        release_all(steps)
    assert done == [0, 1, 2]


def test_the_gravest_error_is_raised_and_the_others_are_counted() -> None:
    done, steps = raising(InferenceError("plain"), DeviceContextError("context"), DeviceFaultError("fault"))
    with pytest.raises(DeviceFaultError, match=r"^fault \(2 more failed to be given back\)$"):
        release_all(steps)
    assert done == [0, 1, 2]
    _, steps = raising(InferenceError("plain"), DeviceContextError("context"))
    with pytest.raises(DeviceContextError, match=r"^context \(1 more failed"):
        release_all(steps)


def test_a_programming_error_comes_through_at_once() -> None:
    done, steps = raising(None)
    with pytest.raises(ZeroDivisionError):
        release_all([lambda: [][1 // 0], *steps])
    assert done == []


class Engine:
    """Something whose memory goes with its last reference."""


@pytest.mark.parametrize("count", [1, 3])
def test_what_the_caller_used_goes_as_soon_as_the_error_was_handled(count: int) -> None:
    kept: list[weakref.ref[Engine]] = []

    def fails() -> None:
        raise InferenceError("of a step")

    def use_and_fail() -> None:
        engine = Engine()
        kept.append(weakref.ref(engine))
        release_all([fails] * count)

    with pytest.raises(InferenceError):
        use_and_fail()
    assert kept[0]() is None
