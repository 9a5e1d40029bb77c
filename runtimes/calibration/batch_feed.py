"""Hands the batches of a dataset to a library's calibrator, which must not be able to end early unnoticed."""

from __future__ import annotations

import numpy as np

from messages import EngineBuildError
from runtimes.calibration.dataset import CalibrationDataset


class BatchFeed:
    """One calibration. `next_batch` never raises: TensorRT takes an exception in its callback for the end of the data
    and writes a cache that looks whole. `finish` tells what happened. Used by one thread at a time.
    """

    def __init__(self, dataset: CalibrationDataset) -> None:
        self._dataset = dataset
        self.failure: BaseException | None = None
        """What stopped the feed; there is no batch after it."""
        self.taken = 0
        """How many batches were handed out."""

    def next_batch(self) -> dict[str, np.ndarray] | None:
        """The next batch by input name; None at the end, and after anything went wrong."""
        if self.failure is not None or self.taken >= self._dataset.count:
            return None
        try:
            batch = self._dataset.batch(self.taken)
        except BaseException as error:  # noqa: BLE001 - the library would swallow it; `finish` raises it
            self.failure = error
            return None
        self.taken += 1
        return batch

    def finish(self) -> None:
        """Raises what stopped the feed, or EngineBuildError where the calibrator did not take every batch once."""
        if self.failure is not None:
            raise self.failure
        if self.taken != self._dataset.count:
            raise EngineBuildError(
                f"calibration dataset {self._dataset.path}: expected the calibrator to take {self._dataset.count}"
                f" batches, found that it took {self.taken}; its scales are not used"
            )
        self._dataset.refuse_changes()
