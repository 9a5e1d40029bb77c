"""What can happen to an engine of a `FakeRuntime`: the steps of which a script is made."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping

import numpy as np

from messages import NS_PER_MS, Tensor, dtype_name
from runtimes.fake_stage import Stage

Tensors = Mapping[str, Tensor]


class Step:
    """One thing that happens to an engine: at a run, or (`at_load`) when it is loaded.

    `outputs` are those of the run where they are known beforehand.
    """

    __slots__ = ("at_load", "outputs", "play")

    def __init__(
        self,
        play: Callable[[Tensors, Stage], dict[str, Tensor]],
        *,
        at_load: bool = False,
        outputs: Tensors | None = None,
    ) -> None:
        self.play = play
        self.at_load = at_load
        self.outputs = outputs


def returns(outputs: Tensors) -> Step:
    """The run yields these outputs; each run new copies."""
    return Step(lambda _inputs, _stage: _copies(outputs), outputs=outputs)


def computes(compute: Callable[[Tensors], Tensors]) -> Step:
    """The run yields what `compute` makes of the inputs, copied."""
    return Step(lambda inputs, _stage: _copies(compute(inputs)))


def raises(error: BaseException) -> Step:
    """The run fails with an error of this type and text, a new one each time. Raises TypeError for what is no error."""
    return Step(_throws(error))


def takes_ms(duration_ms: float, step: Step) -> Step:
    """The step, after this long. With a VirtualClock the clock is moved; in a stepped test others go on meanwhile.

    Raises ValueError for a duration below 0 or without an end, which is what `hangs` is for.
    """
    if not 0.0 <= duration_ms < math.inf:
        raise ValueError(f"takes_ms: expected a duration of 0 ms or more, found {duration_ms!r}")

    def play(inputs: Tensors, stage: Stage) -> dict[str, Tensor]:
        stage.waits.sleep_ns(round(duration_ms * NS_PER_MS))
        return step.play(inputs, stage)

    return Step(play, at_load=step.at_load, outputs=step.outputs)


def blocks_until(event: threading.Event, step: Step | None = None) -> Step:
    """The run begins and stays until the event is set; then the step is played (by default there is no output)."""

    def play(inputs: Tensors, stage: Stage) -> dict[str, Tensor]:
        stage.waits.wait_for(event)
        return step.play(inputs, stage) if step is not None else {}

    return Step(play, outputs=step.outputs if step is not None else None)


def hangs(step: Step | None = None) -> Step:
    """The run does not return until `FakeRuntime.release_hung`; then the step is played (by default without output)."""

    def play(inputs: Tensors, stage: Stage) -> dict[str, Tensor]:
        stage.hang()
        return step.play(inputs, stage) if step is not None else {}

    return Step(play, outputs=step.outputs if step is not None else None)


def loads() -> Step:
    """The next load of this engine succeeds: for `takes_ms(500, loads())`, and for a script in which a load fails
    later.
    """
    return Step(lambda _inputs, _stage: {}, at_load=True)


def hangs_at_load() -> Step:
    """The next load of this engine does not return until `FakeRuntime.release_hung`; then it succeeds."""

    def play(_inputs: Tensors, stage: Stage) -> dict[str, Tensor]:
        stage.hang()
        return {}

    return Step(play, at_load=True)


def fails_to_load(error: BaseException) -> Step:
    """The next load of this engine fails with an error of this type and text. Raises TypeError for what is no error."""
    return Step(_throws(error), at_load=True)


def loads_after(event: threading.Event) -> Step:
    """The next load of this engine stays until the event is set, and then succeeds."""

    def play(_inputs: Tensors, stage: Stage) -> dict[str, Tensor]:
        stage.waits.wait_for(event)
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


def _throws(error: BaseException) -> Callable[[Tensors, Stage], dict[str, Tensor]]:
    if not isinstance(error, BaseException):
        raise TypeError(f"expected an error such as InferenceError('716'), found {error!r}")

    def play(_inputs: Tensors, _stage: Stage) -> dict[str, Tensor]:
        raise type(error)(*error.args)

    return play
