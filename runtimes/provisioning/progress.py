"""What a provisioner tells while it is at work."""

from __future__ import annotations

from typing import Literal

import msgspec

Step = Literal[
    "waiting",
    "decided",
    "compiling",
    "calibration_cache_refused",
    "timing_cache_dropped",
    "accuracy_not_measured",
    "failed",
    "ready",
    "committed",
    "up_to_date",
]


class ProvisionProgress(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a run.

    `waiting` for another provisioner; `decided` (`decision` and `reason`) for each model first; `compiling` once a
    second with `elapsed_ns`, where the library tells how far it is its `phase`, and, where the store knew the model
    before, `former_build_ns`; `ready` for each model
    with its engine file, or `failed` with the reason; at the end `committed` or `up_to_date` with the generation's
    number. `calibration_cache_refused` and `timing_cache_dropped` say why something of a former build was not used,
    `accuracy_not_measured` why there is no reference to hold an engine against.
    """

    step: Step
    model: str = ""
    decision: Literal["reuse", "compile", ""] = ""
    reason: str = ""
    engine: str = ""
    elapsed_ns: int = 0
    phase: str = ""
    former_build_ns: int | None = None
    generation: int = 0
