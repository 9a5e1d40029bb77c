"""What a component tells of the runs that gave it nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.perception.frame_runs import FrameRuns, why
from messages import (
    C7Error,
    DeviceFaultError,
    EngineDeserializeError,
    InferenceError,
    InvalidInputError,
    OutOfMemoryError,
    RequestRejectedError,
    Tensor,
    TransientInferenceError,
)
from messages.infer import RejectReason

OUTPUTS: dict[str, Tensor] = {"out": np.ones(1)}
FAULTS: list[InferenceError | OutOfMemoryError] = [
    InferenceError("error 716"),
    OutOfMemoryError("full"),
    RequestRejectedError("expired", "matcher gave no result, expired"),
    RequestRejectedError("shed", "matcher gave no result, shed"),
]


class Model:
    """Gives its outputs, or raises; counts."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.runs = 0

    def __call__(self, _inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.runs += 1
        if self.error is not None:
            raise self.error
        return OUTPUTS


def told(*asked: tuple[str, BaseException | None]) -> str | None:
    runs = FrameRuns()
    for model, error in asked:
        runs.ask(model, Model(error), {})
    return runs.degraded


def test_a_frame_whose_runs_all_gave_their_result_is_good() -> None:
    runs = FrameRuns()
    assert runs.degraded is None
    assert runs.ask("xfeat", Model(), {}) is OUTPUTS
    assert runs.degraded is None


def test_of_a_single_run_the_model_the_reason_and_the_runs_own_words_are_told() -> None:
    assert told(("xfeat", InferenceError("error 716"))) == "no result from xfeat: inference_error: error 716"


def test_of_several_runs_it_is_told_how_many_and_of_each_reason_how_often() -> None:
    rejected = RequestRejectedError("shed", "x")
    asked = [("lightglue", error) for error in (None, rejected, None, OutOfMemoryError("full"), rejected)]
    assert told(*asked) == "no result from lightglue in 3 of 5 runs: 2 shed, 1 out_of_memory: full"


def test_every_model_that_gave_nothing_is_told_and_no_other() -> None:
    assert told(("xfeat", OutOfMemoryError("full")), ("good", None), ("lightglue", InferenceError("716"))) == (
        "no result from xfeat: out_of_memory: full; no result from lightglue: inference_error: 716"
    )


def test_once_a_run_has_expired_no_other_of_the_frame_is_asked_for() -> None:
    runs, expired, later = FrameRuns(), Model(RequestRejectedError("expired", "late")), Model()
    runs.ask("xfeat", Model(), {})
    runs.ask("xfeat", expired, {})
    assert [runs.ask("xfeat", later, {}), runs.ask("lightglue", later, {})] == [None, None]
    assert later.runs == 0
    assert runs.degraded == (
        "no result from xfeat in 2 of 3 runs: 1 expired, 1 not asked; no result from lightglue: not asked"
    )


@pytest.mark.parametrize("reason", get_args(RejectReason))
def test_every_reason_of_a_rejection_is_told_in_its_own_word(reason: RejectReason) -> None:
    rejected = RequestRejectedError(reason, "matcher gave no result: it restarts; frame=7", detail="it restarts")
    assert why(rejected) == (reason, "it restarts")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InferenceError("716"), "inference_error"),
        (TransientInferenceError("716"), "inference_error"),
        (DeviceFaultError("716"), "inference_error"),
        (InvalidInputError("716"), "invalid_input"),
        (OutOfMemoryError("716"), "out_of_memory"),
    ],
)
def test_a_fault_of_the_run_has_the_reason_that_a_rejection_would_have(
    error: InferenceError | OutOfMemoryError, reason: str
) -> None:
    assert why(error) == (reason, "716")


@pytest.mark.parametrize("error", [KeyError("image"), EngineDeserializeError("gone"), C7Error("?"), SystemExit()])
def test_what_is_no_error_of_a_run_is_not_swallowed(error: BaseException) -> None:
    with pytest.raises(type(error)):
        FrameRuns().ask("xfeat", Model(error), {})


@given(st.lists(st.sampled_from([None, *FAULTS]), max_size=30))
def test_every_run_has_its_outputs_or_is_told(errors: list[InferenceError | OutOfMemoryError | None]) -> None:
    runs = FrameRuns()
    model = [Model(error) for error in errors]
    results = [runs.ask("lightglue", each, {}) for each in model]
    expired = [isinstance(error, RequestRejectedError) and error.reason == "expired" for error in errors]
    reached = expired.index(True) + 1 if True in expired else len(errors)
    assert [each.runs for each in model] == [1] * reached + [0] * (len(errors) - reached)
    lost = results.count(None)
    if lost == 0:
        assert runs.degraded is None
    elif len(errors) > 1:
        assert runs.degraded is not None
        assert runs.degraded.startswith(f"no result from lightglue in {lost} of {len(errors)} runs: ")
        assert (f"{len(errors) - reached} not asked" in runs.degraded) == (reached < len(errors))
