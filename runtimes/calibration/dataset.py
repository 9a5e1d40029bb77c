"""What an INT8 model is calibrated on: batches of its inputs, checked whole before anything is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from messages import ConfigError, EngineBuildError, InvalidInputError, TensorSpec
from messages.lifecycle import Sha256
from runtimes.inference_runtime import ProfileRange
from runtimes.samples import SampleFile, Samples
from runtimes.tensor_check import check_inputs


class CalibrationDataset:
    """Each .npz file is one batch, with the arrays of all inputs by name. One batch is in memory at a time.

    A dynamic input has the profile's optimal shape in every batch: TensorRT calibrates at that one shape, and takes a
    batch as a bare address, so that another shape would be read as garbage. Callable from any thread.
    """

    def __init__(self, samples: Samples, specs: Mapping[str, TensorSpec]) -> None:
        self._samples = samples
        self._specs = dict(specs)

    @classmethod
    def open(
        cls,
        path: Path,
        inputs: Mapping[str, TensorSpec],
        profile: tuple[ProfileRange, ...] = (),
        *,
        minimum_batches: int = 1,
    ) -> CalibrationDataset:
        """Read and check every batch once.

        A dataset that cannot be used is a build that cannot start: raises EngineBuildError naming file and input,
        what was expected and what was found, for one that is missing, empty, short of `minimum_batches`, changing
        while it is read, or with a batch that does not fit `inputs` or has a value that is not finite.
        """
        try:
            samples = Samples.open(path)
        except ConfigError as error:
            raise EngineBuildError(f"calibration dataset {error}") from error
        if samples.count < minimum_batches:
            raise EngineBuildError(
                f"calibration dataset {path}: expected at least {minimum_batches} batches, found {samples.count}; each"
                " .npz file is one batch; add more"
            )
        dataset = cls(samples, _fixed_specs(path, inputs, profile))
        for index in range(dataset.count):
            dataset.batch(index)
        dataset.refuse_changes()
        return dataset

    @property
    def path(self) -> Path:
        return self._samples.path

    @property
    def count(self) -> int:
        """The number of batches."""
        return self._samples.count

    @property
    def sha256(self) -> Sha256:
        """Over the names, sizes and contents of the files, as `Samples` has it."""
        return self._samples.sha256

    def batch(self, index: int) -> dict[str, np.ndarray]:
        """One batch, its arrays contiguous. Raises EngineBuildError as `open` does."""
        file = self._samples.files[index]
        try:
            arrays = self._samples.read(file)
            check_inputs(f"calibration dataset {file.path}", self._specs, (), arrays, host_only=True)
        except (ConfigError, InvalidInputError) as error:
            text = str(error) if isinstance(error, InvalidInputError) else f"calibration dataset {error}"
            raise EngineBuildError(text) from error
        return {name: _finite(file, name, arrays[name]) for name in self._specs}

    def refuse_changes(self) -> None:
        """Raises EngineBuildError where batches were added or removed since the dataset was opened."""
        try:
            self._samples.refuse_other_files()
        except ConfigError as error:
            raise EngineBuildError(f"calibration dataset {error}") from error


def _fixed_specs(
    path: Path, inputs: Mapping[str, TensorSpec], profile: tuple[ProfileRange, ...]
) -> dict[str, TensorSpec]:
    optimal = {name: opt for name, _, opt, _ in profile}
    specs = {name: TensorSpec(optimal.get(name, spec.shape), spec.dtype) for name, spec in inputs.items()}
    unbound = [f"{name} {spec}" for name, spec in specs.items() if -1 in spec.shape]
    if unbound:
        raise EngineBuildError(
            f"calibration dataset {path}: expected a profile for each dynamic input, which says at what shape to"
            f" calibrate; found none for {', '.join(unbound)}"
        )
    if not specs:
        raise EngineBuildError(f"calibration dataset {path}: expected a model with inputs to calibrate, found none")
    return specs


def _finite(file: SampleFile, name: str, array: np.ndarray) -> np.ndarray:
    if np.issubdtype(array.dtype, np.floating):
        finite = np.isfinite(array)
        if not finite.all():
            at = tuple(int(index) for index in np.unravel_index(int(finite.argmin()), array.shape))
            raise EngineBuildError(
                f"calibration dataset {file.path}: input {name}: expected finite values, found {array[at]} at"
                f" {list(at)}"
            )
    return np.ascontiguousarray(array)
