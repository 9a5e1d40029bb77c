"""What can happen to an engine of a `FakeRuntime`: the steps of which a script is made."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import numpy as np

from messages import Clock, InferenceError, Tensor, VirtualClock, dtype_name

BLOCK_MAX_S = 60.0
"""How long `blocks_until` and `loads_after` wait at most: a test that forgets its event fails, it does not hang."""

Tensors = Mapping[str, Tensor]


class Step:
    """One thing that happens to an engine: at a run, or (`at_load`) when it is loaded.

    `outputs` are those of the run where they are known beforehand.
    """

    __slots__ = ("at_load", "outputs", "play")

    def __init__(
        self,
        play: Callable[[Tensors, Clock], dict[str, Tensor]],
        *,
        at_load: bool = False,
        outputs: Tensors | None = None,
    ) -> None:
        self.play = play
        self.at_load = at_load
        self.outputs = outputs


def returns(outputs: Tensors) -> Step:
    """The run yields these outputs; each run new copies."""
    return Step(lambda _inputs, _clock: _copies(outputs), outputs=outputs)


def computes(compute: Callable[[Tensors], Tensors]) -> Step:
    """The run yields what `compute` makes of the inputs, copied."""
    return Step(lambda inputs, _clock: _copies(compute(inputs)))


def raises(error: BaseException) -> Step:
    """The run fails with an error of this type and text, a new one each time."""
    return Step(lambda _inputs, _clock: _throw(error))


def takes_ms(duration_ms: float, step: Step) -> Step:
    """The step, after this long. With a VirtualClock the clock is moved instead of waiting."""

    def play(inputs: Tensors, clock: Clock) -> dict[str, Tensor]:
        if isinstance(clock, VirtualClock):
            clock.advance_ms(duration_ms)
        else:
            time.sleep(duration_ms / 1000)
        return step.play(inputs, clock)

    return Step(play, at_load=step.at_load, outputs=step.outputs)


def blocks_until(event: threading.Event, step: Step | None = None) -> Step:
    """The run begins and stays until the event is set; then the step is played (by default there is no output)."""

    def play(inputs: Tensors, clock: Clock) -> dict[str, Tensor]:
        _await(event)
        return step.play(inputs, clock) if step is not None else {}

    return Step(play, outputs=step.outputs if step is not None else None)


def fails_to_load(error: BaseException) -> Step:
    """The next load of this engine fails with an error of this type and text."""
    return Step(lambda _inputs, _clock: _throw(error), at_load=True)


def loads_after(event: threading.Event) -> Step:
    """The next load of this engine stays until the event is set, and then succeeds."""

    def play(_inputs: Tensors, _clock: Clock) -> dict[str, Tensor]:
        _await(event)
        return {}

    return Step(play, at_load=True)


def _copies(outputs: Tensors) -> dict[str, Tensor]:
    return {name: _copy(tensor) for name, tensor in outputs.items()}


def _copy(tensor: Tensor) -> Tensor:
    if not isinstance(tensor, np.ndarray):
        raise TypeError(
            f"a scripted output is a NumPy array; got a {type(tensor).__name__} of {dtype_name(tensor.dtype)}"
        )
    return np.array(tensor, copy=True)


def _throw(error: BaseException) -> dict[str, Tensor]:
    raise type(error)(*error.args)


def _await(event: threading.Event) -> None:
    if not event.wait(BLOCK_MAX_S):
        raise InferenceError(f"a scripted step waited {BLOCK_MAX_S:.0f} s for its event")
