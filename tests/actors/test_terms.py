"""What `supervise` and `RestartPolicy` are asked for and cannot do is refused by name, before anything starts."""

from __future__ import annotations

import threading

import msgspec
import pytest

from actors import RestartPolicy, supervise
from actors.stepped import stepped
from runtimes import FakeRuntime, returns

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"mode": "takeof"}, "mode: expected one of takeoff, recovery, found 'takeof'"),
        ({"policy": {"max_restarts": 1}}, "policy: expected a RestartPolicy, found {'max_restarts': 1}"),
        *[
            ({"runs_at_once": count}, f"runs_at_once: expected a whole number of 1 or more, found {count!r}")
            for count in (0, -1, 1.5, "2")
        ],
        *[
            ({name: duration}, f"{name}: expected a duration above 0, found {duration!r}")
            for name in ("run_limit_ms", "load_timeout_s", "period_s")
            for duration in (0, -1.0, NAN, INFINITE, "5")
        ],
        ({"priorities": {"vpr": 0, "vrp": 1}}, "priorities: expected names of `engines` (vpr), found vrp"),
        ({"priorities": {"vpr": "1"}}, "priorities: expected a whole number for vpr, found '1'"),
        ({"self_test_tolerances": {"vrp": 0.1}}, "self_test_tolerances: expected names of `engines` (vpr), found vrp"),
        ({"self_test_tolerances": {"vpr": NAN}}, "self_test_tolerances: expected 0 or more for vpr, found nan"),
        ({"self_test_tolerances": {"vpr": -1.0}}, "self_test_tolerances: expected 0 or more for vpr, found -1.0"),
        ({"thermal": "sysfs"}, """thermal: expected "auto", None or a source with a read(), found 'sysfs'"""),
    ],
    ids=str,
)
def test_a_supervision_that_cannot_be_is_refused_by_name_and_starts_nothing(
    options: dict[str, object], refusal: str
) -> None:
    before = set(threading.enumerate())
    fake = FakeRuntime({"vpr": returns({})})
    with pytest.raises((ValueError, TypeError)) as told:
        supervise(fake, fake.entries(), **options)  # type: ignore[arg-type]
    assert str(told.value) == refusal
    assert set(threading.enumerate()) == before
    assert fake.loads("vpr") == 0


@pytest.mark.parametrize("trace", ["trace.jsonl", "auto"])
def test_a_stepped_test_never_reads_the_heat_of_the_board_that_it_runs_on(trace: str) -> None:
    with pytest.raises(TypeError, match=f"thermal: expected the Path of a trace, a source or None.*{trace}"):
        stepped(FakeRuntime({"vpr": returns({})}), thermal=trace)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"thermal: expected .* a source with a read\(\), found 5"):
        stepped(FakeRuntime({"vpr": returns({})}), thermal=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, 0.5, "5", None])
@pytest.mark.parametrize("name", [each for each in RestartPolicy.__struct_fields__ if each != "jitter_share"])
def test_a_policy_counts_in_whole_numbers_that_are_none_below_0(name: str, value: object) -> None:
    least = 1 if name == "window_ns" else 0
    with pytest.raises(ValueError, match=f"{name} must be a whole number of {least} or more, got {value!r}"):
        RestartPolicy(**{name: value})  # type: ignore[arg-type]


def test_a_policy_without_a_window_is_a_mistake_and_one_without_restarts_is_not() -> None:
    with pytest.raises(ValueError, match="window_ns must be a whole number of 1 or more, got 0"):
        RestartPolicy(window_ns=0)
    strictest = RestartPolicy(max_restarts=0, first_delay_ns=0, probation_after_ns=0, jitter_share=0)
    assert msgspec.structs.replace(strictest, max_restarts=1).max_restarts == 1
