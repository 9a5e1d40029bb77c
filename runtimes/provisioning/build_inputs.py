"""What a compiled engine is tried on before it is signed off: the plan's samples, or inputs made up for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from messages import ConfigError, InvalidInputError
from messages.lifecycle import Sha256
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.sample_inputs import sample_inputs
from runtimes.samples import Samples
from runtimes.tensor_check import check_inputs

MADE_UP = 3
"""How many made-up inputs stand in for samples."""

Inputs = dict[str, np.ndarray]


class BuildInputs:
    """The inputs of one engine in its own dtypes, read or made once each time they are iterated."""

    def __init__(self, entry: EngineCacheEntry, samples: Path | None) -> None:
        """Raises ConfigError where the samples cannot be read, or nothing says how large made-up inputs are to be."""
        self._entry = entry
        self._samples = None if samples is None else Samples.open(samples)
        if self._samples is None:
            sample_inputs(entry)

    @property
    def samples_sha256(self) -> Sha256 | None:
        return None if self._samples is None else self._samples.sha256

    @property
    def count(self) -> int:
        return MADE_UP if self._samples is None else self._samples.count

    def __iter__(self) -> Iterator[Inputs]:
        """Raises ConfigError naming the file and the input that does not fit the engine, or changed meanwhile."""
        if self._samples is None:
            for seed in range(MADE_UP):
                yield sample_inputs(self._entry, seed)
            return
        for file in self._samples.files:
            yield fitted(file.path, self._entry, self._samples.read(file))
        self._samples.refuse_other_files()

    def first(self) -> Inputs:
        return next(iter(self))

    def smallest(self) -> Inputs:
        """Made up, of the profile's smallest shapes. Raises ConfigError where a dynamic input has no profile."""
        return sample_inputs(self._entry, at="min")

    def heaviest(self) -> Inputs:
        """What takes most memory: made up of the profile's largest shapes; without a profile the first sample."""
        ranges = {name for name, *_ in self._entry.build_config.optimization_profiles}
        sized = all(min(spec.shape, default=0) >= 0 or name in ranges for name, spec in self._entry.inputs.items())
        return sample_inputs(self._entry, at="max") if sized else self.first()


def fitted(file: Path, entry: EngineCacheEntry, arrays: Inputs) -> Inputs:
    """The arrays of a sample as the engine takes them: floats are cast to its width, nothing else is changed.

    Raises ConfigError naming file and input for a name, type or shape that does not fit, and for a value that is
    finite in the file and infinite in the engine's type.
    """
    cast = {}
    for name, array in arrays.items():
        spec = entry.inputs.get(name)
        if spec is None or array.dtype.kind != "f" or not spec.dtype.startswith("float"):
            cast[name] = array
            continue
        with np.errstate(over="ignore"):
            cast[name] = array.astype(spec.dtype)
        if (np.isinf(cast[name]) & np.isfinite(array)).any():
            raise ConfigError(
                f"{file}: input {name}: expected values that {spec.dtype} can hold, found {np.abs(array).max():g};"
                " scale the samples as the engine's consumers do"
            )
    try:
        check_inputs(entry.model, entry.inputs, entry.build_config.optimization_profiles, cast, host_only=True)
    except InvalidInputError as error:
        raise ConfigError(f"{file}: the sample does not fit the engine: {error}") from error
    return cast
