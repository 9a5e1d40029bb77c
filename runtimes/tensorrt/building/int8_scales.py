"""The scales of one INT8 build: which may be used again, and whether they are all there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from messages import CalibrationCacheError, EngineBuildError, TensorSpec
from runtimes.calibration.cache import REMEDY, CalibrationBinding, CalibrationCache, load_calibration
from runtimes.calibration.dataset import CalibrationDataset
from runtimes.calibration.scales import missing_scales
from runtimes.inference_runtime import BuildConfig
from runtimes.source_model import SourceModel
from runtimes.tensorrt.building.calibrator import CALIBRATOR

MINIMUM_BATCHES = 10
"""A histogram of fewer pictures is one of those pictures. NVIDIA's guide says that some 500 images suffice for
networks of ImageNet; a batch may hold many."""


class Int8Scales:
    """What one build calibrates on. `trusted` is the cache of a former build that was made from just this."""

    def __init__(
        self,
        source: SourceModel,
        build_config: BuildConfig,
        inputs: Mapping[str, TensorSpec],
        library: str,
        cache_path: Path | None,
    ) -> None:
        """`library` is TensorRT's full version: the scales of another one are not used.

        Raises EngineBuildError for a dataset that cannot be used, CalibrationCacheError for a cache at `cache_path`
        that cannot be trusted.
        """
        if build_config.calibration_dataset is None:
            raise EngineBuildError(f"{source.path}: int8 is calibrated on a dataset: expected one, found none")
        self._source = source
        self._inputs = {name: spec for name, spec in inputs.items() if spec.dtype.startswith("float")}
        self.dataset = CalibrationDataset.open(
            build_config.calibration_dataset,
            inputs,
            build_config.optimization_profiles,
            minimum_batches=MINIMUM_BATCHES,
        )
        self.binding = CalibrationBinding(
            dataset_sha256=self.dataset.sha256,
            source_sha256=source.sha256,
            calibrator=CALIBRATOR,
            library=f"tensorrt {library}",
            batches=self.dataset.count,
        )
        self.trusted = None if cache_path is None else load_calibration(cache_path, self.binding)
        if self.trusted is not None:
            self._refuse_missing(self.trusted)

    @property
    def trusted_table(self) -> bytes | None:
        return None if self.trusted is None else self.trusted.table_text

    def cache_of(self, table: bytes) -> CalibrationCache:
        """The cache to be kept with the engine that was built with this table.

        Raises EngineBuildError where it is no table of this calibrator, or an input has no scale in it.
        """
        cache = CalibrationCache(self.binding, table)
        try:
            cache.encode()
        except ValueError as error:
            raise EngineBuildError(f"{self._source.path}: TensorRT wrote no calibration table: {error}") from error
        self._refuse_missing(cache)
        return cache

    def _refuse_missing(self, cache: CalibrationCache) -> None:
        """The inputs are the tensors whose names are ours; of the others TensorRT fuses most away."""
        unscaled = missing_scales(cache.table, self._inputs)
        if not unscaled:
            return
        text = (
            f"{self._source.path}: expected a scale for each input, found none for {', '.join(unscaled)}: zero in every"
            f" batch of {self.dataset.path}, or not in the table; calibrate on inputs as they come in flight"
        )
        if cache is self.trusted:
            raise CalibrationCacheError(f"{text}; {REMEDY}")
        raise EngineBuildError(text)
