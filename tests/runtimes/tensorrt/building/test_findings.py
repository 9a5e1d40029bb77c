"""What TensorRT's log says of a build, and when that makes an engine weaker than what was asked for."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import pytest

from runtimes.build_report import LINE_MAX_CHARS, WARNINGS_MAX
from runtimes.inference_runtime import BuildConfig, Precision
from runtimes.onnx_types import OnnxTypes
from runtimes.tensorrt.building.build_findings import BuildFindings, find_in_log, why_weakened
from runtimes.tensorrt.building.recipe import EngineRecipe, engine_recipe
from runtimes.tensorrt.log import TensorrtLine

MIB = 1024**2
SKIPPED = (
    "UNSUPPORTED_STATE: Skipping tactic 9 due to insufficient memory on requested size of {} detected for tactic"
    " 0x8a196054417f1c8a."
)
REQUEST = "Tactic Device request: {}MB Available: {}MB. Device memory is insufficient to use tactic."
UNSCALED = (
    "Missing scale and zero-point for tensor {}, expect fall back to non-int8 implementation for any layer consuming or"
    " producing given tensor"
)


def warning(text: str) -> TensorrtLine:
    return TensorrtLine("WARNING", text, 1)


def found(*texts: str, workspace_mb: int = 1024, activations: Collection[str] | None = None) -> BuildFindings:
    return find_in_log([warning(text) for text in texts], workspace_mb * MIB, activations)


def recipe(precision: Precision = "fp16") -> EngineRecipe:
    made = engine_recipe("m", BuildConfig(), OnnxTypes())
    return msgspec.structs.replace(made, precision=precision)


def test_a_tactic_beyond_the_workspace_is_counted_and_is_no_fault() -> None:
    findings = found(REQUEST.format(2304, 1024), SKIPPED.format(2304 * MIB))

    assert (findings.skipped_tactics, findings.short_of_memory) == (1, "")
    assert why_weakened(findings, recipe()) == ""


@pytest.mark.parametrize(
    "text",
    [
        REQUEST.format(1000, 302),
        SKIPPED.format(1048576000),
        "Skipping tactic 3 due to insuficient memory on requested size of 449 detected for tactic 4.",
    ],
)
def test_a_tactic_that_the_workspace_allows_was_left_out_for_want_of_memory_and_the_engine_is_refused(
    text: str,
) -> None:
    findings = found("a harmless warning", text)

    why = why_weakened(findings, recipe())
    assert "the device was short of memory during the build" in why
    assert "workspace of 1024 MiB" in why
    assert text[:40] in why
    assert "compile again" in why


def test_both_lines_of_a_tactic_beyond_the_workspace_agree_though_the_device_is_short_of_memory_too() -> None:
    findings = found(REQUEST.format(1000, 302), SKIPPED.format(1000 * MIB), workspace_mb=512)

    assert (findings.skipped_tactics, findings.short_of_memory) == (1, "")


def test_tactics_are_counted_once_though_two_lines_speak_of_each() -> None:
    findings = found(*[text for _ in range(3) for text in (REQUEST.format(4096, 1024), SKIPPED.format(4096 * MIB))])

    assert findings.skipped_tactics == 3


def test_a_tensor_without_a_scale_is_counted_once_and_only_an_int8_engine_is_refused_for_it() -> None:
    names = ["onnx::Conv_1", "(Unnamed Layer* 3) [Shuffle]_output", "a: b", "onnx::Conv_1", "z"]
    findings = found(*(UNSCALED.format(name) for name in names))

    assert findings.unscaled == ("onnx::Conv_1", "(Unnamed Layer* 3) [Shuffle]_output", "a: b", "z")
    assert findings.missing_scales == 4
    assert why_weakened(findings, recipe("mixed")) == ""
    why = why_weakened(findings, recipe("int8"))
    assert "onnx::Conv_1" in why
    assert "and 1 more" in why


def test_only_what_calibration_can_give_a_scale_is_missed_in_an_int8_engine() -> None:
    lines = [UNSCALED.format(name) for name in ("norm.weight_output", "ids", "features")]

    assert why_weakened(found(*lines, activations={"image", "descriptor"}), recipe("int8")) == ""
    findings = found(*lines, activations={"image", "features"})
    assert (findings.missing_scales, findings.unscaled) == (3, ("features",))
    assert "found none for features, whose layers" in why_weakened(findings, recipe("int8"))


def test_the_one_activation_without_a_scale_is_found_behind_any_number_of_constants() -> None:
    constants = (warning(UNSCALED.format(f"weight.{number}")) for number in range(120_000))
    findings = find_in_log([*constants, warning(UNSCALED.format("features"))], MIB, {"features"})

    assert findings.unscaled == ("features",)
    assert findings.missing_scales == 100_000


def test_an_engine_of_which_the_log_says_nothing_is_not_weakened() -> None:
    findings = find_in_log([], 1)

    assert findings == BuildFindings()
    assert why_weakened(findings, recipe("int8")) == ""


def test_warnings_are_kept_once_each_bounded_and_without_what_is_no_warning() -> None:
    lines = [warning("twice"), warning("twice"), TensorrtLine("INFO", "said", 1), warning("\x1b[31m" + "x" * 5000)]
    lines += [warning(f"number {number}") for number in range(100)]
    findings = find_in_log(lines, 1)

    assert findings.warnings[0] == "twice"
    assert len(findings.warnings) == WARNINGS_MAX
    assert max(map(len, findings.warnings)) <= LINE_MAX_CHARS
    assert all(text.isprintable() for text in findings.warnings)
