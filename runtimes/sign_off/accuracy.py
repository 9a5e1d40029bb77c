"""How far an engine's outputs are from a reference, and whether that is near enough. Pure functions."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from runtimes.measurements import AccuracyRecord, OutputError

Outputs = Mapping[str, np.ndarray]
_LARGEST = sys.float_info.max


class IncomparableOutputsError(Exception):
    """Two sets of outputs that no figure can compare; the text names output, sample, expected and found."""


class _Tally:
    """What one output adds up to over all samples."""

    def __init__(self) -> None:
        self.is_float = False
        self.error_norm = 0.0
        self.reference_norm = 0.0
        self.max_abs = 0.0
        self.differing = 0
        self.elements = 0

    def figures(self) -> OutputError:
        relative = self._relative_rms() if self.is_float else self.differing / max(1, self.elements)
        return OutputError(relative_rms=min(relative, _LARGEST), max_abs=min(self.max_abs, _LARGEST))

    def _relative_rms(self) -> float:
        """Against a reference of zeros any error is a whole one: 1, as of an engine that gives zeros for something.

        No scale says how small such an error is; `max_abs` says how large it is in the output's own unit. A norm beyond
        the largest float64 leaves no ratio: the figure is then the largest there is, which no tolerance takes.
        """
        if self.error_norm == 0.0:
            return 0.0
        if math.isinf(self.error_norm) or math.isinf(self.reference_norm):
            return _LARGEST
        return self.error_norm / self.reference_norm if self.reference_norm > 0.0 else 1.0


def compare(pairs: Iterable[tuple[Outputs, Outputs]]) -> dict[str, OutputError]:
    """The error of each output over all samples; `pairs` are (engine, reference) and are taken one by one.

    In float64, so that the comparison adds no error of its own to float32 or float16. Where the reference is infinite
    or not a number, the same value counts as equal. An output without elements in every sample has error 0.

    Raises IncomparableOutputsError where the outputs have other names, shapes or kinds, where one of both is not
    finite and the other is not the same, and where there is no sample.
    """
    tallies: dict[str, _Tally] = {}
    sample = -1
    for sample, (engine, reference) in enumerate(pairs):
        if engine.keys() != reference.keys():
            raise IncomparableOutputsError(
                f"sample {sample}: expected outputs {', '.join(sorted(reference))}, found {', '.join(sorted(engine))}"
            )
        for name, expected in reference.items():
            fault = _add(tallies.setdefault(name, _Tally()), engine[name], expected)
            if fault:
                raise IncomparableOutputsError(f"output {name}, sample {sample}: {fault}")
    if sample < 0:
        raise IncomparableOutputsError("expected at least one sample, found none")
    return {name: tally.figures() for name, tally in tallies.items()}


def judge_accuracy(record: AccuracyRecord, tolerance: float | None) -> str:
    """Why the engine is not accurate enough, with the figures; "" where it is, or where nothing is asked of it."""
    if tolerance is None:
        return ""
    faults = faults_over(record.outputs, tolerance)
    if not faults:
        return ""
    of_samples = "made-up inputs" if record.samples_sha256 is None else "given samples"
    return (
        f"{'; '.join(faults)}; the reference is {record.reference}, over {record.sample_count} {of_samples};"
        " compile it in a higher precision, or raise accuracy_tolerance if the mission bears it"
    )


def faults_over(outputs: Mapping[str, OutputError], tolerance: float) -> list[str]:
    """One text for each output whose relative error is over the tolerance, the worst first."""
    worst_first = sorted(outputs.items(), key=lambda item: -item[1].relative_rms)
    return [
        f"output {name}: expected a relative error of at most {tolerance:.3g}, found {error.relative_rms:.3g}"
        f" (largest difference {error.max_abs:.3g})"
        for name, error in worst_first
        if not error.relative_rms <= tolerance
    ]


def _add(tally: _Tally, engine: np.ndarray, reference: np.ndarray) -> str:
    """Add one sample, or say why the two cannot be compared."""
    if engine.shape != reference.shape:
        return f"expected shape {list(reference.shape)}, found {list(engine.shape)}"
    engine_is_float, reference_is_float = (_is_float(array) for array in (engine, reference))
    if engine_is_float != reference_is_float or (not engine_is_float and engine.dtype != reference.dtype):
        return f"expected {reference.dtype}, found {engine.dtype}"
    tally.is_float = engine_is_float
    tally.elements += reference.size
    if not reference.size:
        return ""
    if engine_is_float:
        return _add_floats(tally, engine.astype(np.float64), reference.astype(np.float64))
    _add_integers(tally, engine, reference)
    return ""


def _add_floats(tally: _Tally, engine: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> str:
    finite = np.isfinite(engine) & np.isfinite(reference)
    lost = ~finite & (engine != reference) & ~(np.isnan(engine) & np.isnan(reference))
    if lost.any():
        at = int(np.flatnonzero(lost)[0])
        return (
            f"{int(lost.sum())} of {lost.size} values are not finite on one side, or differ in their infinity: at {at}"
            f" expected {reference.flat[at]:g}, found {engine.flat[at]:g}"
        )
    reference = np.where(finite, reference, 0.0)
    with np.errstate(over="ignore"):  # of float64 outputs near the largest number; the figures are bounded
        difference = np.where(finite, engine, 0.0) - reference
    tally.error_norm = math.hypot(tally.error_norm, _norm(difference))
    tally.reference_norm = math.hypot(tally.reference_norm, _norm(reference))
    tally.max_abs = max(tally.max_abs, float(np.abs(difference).max()))
    return ""


def _add_integers(tally: _Tally, engine: np.ndarray, reference: np.ndarray) -> None:
    """The distance is taken in uint64, where it wraps to the right value for signed and unsigned alike."""
    engine, reference = np.atleast_1d(engine), np.atleast_1d(reference)  # NumPy warns of a scalar that wraps
    low, high = np.minimum(engine, reference), np.maximum(engine, reference)
    tally.differing += int((low != high).sum())
    tally.max_abs = max(tally.max_abs, float((high.astype(np.uint64) - low.astype(np.uint64)).max()))


def _is_float(array: np.ndarray) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def _norm(values: npt.NDArray[np.float64]) -> float:
    """The Euclidean norm, scaled so that squares neither overflow nor vanish."""
    peak = float(np.abs(values).max())
    if peak == 0.0 or math.isinf(peak):
        return peak
    return peak * math.sqrt(float(np.square(values / peak).sum()))
