"""What became of one component's runs for one frame, and how that is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from messages import InferenceError, InvalidInputError, OutOfMemoryError, RequestRejectedError, Tensor, describe_error

Run = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]

EXPIRED = "expired"
NOT_ASKED = "not asked"


class ModelRuns(msgspec.Struct):
    """One model's runs for one frame: how many, what those without a result died of, and the first one's own words."""

    runs: int = 0
    lost: Counter[str] = msgspec.field(default_factory=Counter)
    detail: str = ""


class FrameRuns:
    """The runs of one component for one frame, one after the other; made anew for each frame.

    All of them have one deadline: once a run has expired, the others of this frame are not asked for any more.
    """

    def __init__(self) -> None:
        self._models: dict[str, ModelRuns] = {}
        self._expired = False

    def ask(self, model: str, run: Run, inputs: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The outputs of `run(inputs)`, None where there are none. Raises only what is no error of a run."""
        runs = self._models.setdefault(model, ModelRuns())
        runs.runs += 1
        if self._expired:
            runs.lost[NOT_ASKED] += 1
            return None
        try:
            return run(inputs)
        except (InferenceError, OutOfMemoryError) as error:
            reason, detail = why(error)
        self._expired = reason == EXPIRED
        runs.lost[reason] += 1
        runs.detail = runs.detail or detail
        return None

    @property
    def degraded(self) -> str | None:
        """What `on_frame` reports: None where every run gave its result."""
        told = [tell(model, runs) for model, runs in self._models.items() if runs.lost]
        return "; ".join(told) or None


def why(error: InferenceError | OutOfMemoryError) -> tuple[str, str]:
    """Pure. The reason in the words of `RejectReason`, and what the run's own error adds to it."""
    if isinstance(error, RequestRejectedError):
        return error.reason, error.detail
    if isinstance(error, InvalidInputError):
        return "invalid_input", describe_error(error)
    return ("out_of_memory" if isinstance(error, OutOfMemoryError) else "inference_error"), describe_error(error)


def tell(model: str, runs: ModelRuns) -> str:
    """Pure. `no result from lightglue in 6 of 10 runs: 1 expired, 5 not asked`; of a single run only its reason."""
    detail = f": {runs.detail}" if runs.detail else ""
    if runs.runs == 1:
        return f"no result from {model}: {next(iter(runs.lost))}{detail}"
    reasons = ", ".join(f"{count} {reason}" for reason, count in runs.lost.items())
    return f"no result from {model} in {runs.lost.total()} of {runs.runs} runs: {reasons}{detail}"
