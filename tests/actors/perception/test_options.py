"""Options of the wrong type or range are refused with what was expected and found."""

from __future__ import annotations

import math

import pytest

from actors.perception.options import require_amount, require_counts
from messages import ConfigError


@pytest.mark.parametrize("found", [0, -1, 1.0, True, "3", None, math.inf])
def test_a_count_is_a_whole_number_of_at_least_one(found: object) -> None:
    require_counts("matcher", keypoints=1, keyframe_every=10**9)
    with pytest.raises(ConfigError, match="matcher keypoints: expected a whole number of 1 or more, found"):
        require_counts("matcher", keypoints=found)


@pytest.mark.parametrize("found", [-0.1, math.nan, math.inf, True, "0.1", None])
def test_an_amount_is_a_number_of_at_least_zero(found: object) -> None:
    for amount in (0, 0.0, 3, 0.03):
        require_amount("refiner", "plain_below", amount)
    with pytest.raises(ConfigError, match="refiner plain_below: expected a number of 0 or more, found"):
        require_amount("refiner", "plain_below", found)
