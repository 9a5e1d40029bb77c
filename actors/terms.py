"""What `supervise` is asked for, held against what can be done, before anything starts: pure.

A word or a number that is no such thing would otherwise be found in the air, or never: a mode that is misspelt flies
without the engines of a takeoff, a limit of nothing takes every run for one that hangs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TypeGuard, get_args

from actors.restart import RestartPolicy
from actors.supervisor import Mode


def check_terms(
    models: Collection[str] | None,
    *,
    mode: object,
    policy: object,
    runs_at_once: object,
    priorities: Mapping[str, object],
    self_test_tolerances: Mapping[str, object],
    durations: Mapping[str, object],
) -> None:
    """`models` is None where engines come later: then any of them may be named. `durations` are those that have to be
    above zero, by name. Raises ValueError, or TypeError for a policy or a priority that is none, which names what is
    wrong.
    """
    if models is not None and not models:
        raise ValueError("supervise needs at least one engine; `engines` is empty; None says that they come later")
    if mode not in get_args(Mode):
        raise ValueError(f"mode: expected one of {', '.join(get_args(Mode))}, found {mode!r}")
    if not isinstance(policy, RestartPolicy):
        raise TypeError(f"policy: expected a RestartPolicy, found {policy!r}")
    if not isinstance(runs_at_once, int) or runs_at_once < 1:
        raise ValueError(f"runs_at_once: expected a whole number of 1 or more, found {runs_at_once!r}")
    for name, duration in durations.items():
        if not _is_number(duration) or not 0.0 < duration < math.inf:
            raise ValueError(f"{name}: expected a duration above 0, found {duration!r}")
    for name, by_model in (("priorities", priorities), ("self_test_tolerances", self_test_tolerances)):
        unknown = [] if models is None else sorted(set(by_model) - set(models))
        if models is not None and unknown:
            raise ValueError(f"{name}: expected names of `engines` ({', '.join(models)}), found {', '.join(unknown)}")
    for model, priority in priorities.items():
        if not isinstance(priority, int):
            raise TypeError(f"priorities: expected a whole number for {model}, found {priority!r}")
    for model, tolerance in self_test_tolerances.items():
        if not _is_number(tolerance) or not 0.0 <= tolerance < math.inf:
            raise ValueError(f"self_test_tolerances: expected 0 or more for {model}, found {tolerance!r}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float)
