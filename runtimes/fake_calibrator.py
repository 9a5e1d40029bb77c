"""The calibrator of the fake runtime: real datasets, real caches and real trust, with the simplest of scales."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from messages import EngineBuildError, TensorSpec
from runtimes.calibration.batch_feed import BatchFeed
from runtimes.calibration.cache import CalibrationBinding, CalibrationCache, load_calibration
from runtimes.calibration.dataset import CalibrationDataset
from runtimes.calibration.scales import CalibrationTable, missing_scales
from runtimes.inference_runtime import BuildConfig
from runtimes.source_model import SourceModel
from runtimes.store.engine_writer import BuiltEngine

CALIBRATOR = "MaxAbs"
LIBRARY = "fake 1"
_INT8_MAX = 127


def calibrated_engine(
    built: BuiltEngine, source: SourceModel, build_config: BuildConfig, cache_path: Path
) -> tuple[BuiltEngine, int]:
    """The engine with its calibration in it, and how many batches were run for it.

    A cache at `cache_path` is taken where it can be trusted; then no batch is run. Raises CalibrationCacheError for a
    cache that is there and cannot be trusted, EngineBuildError for a dataset that cannot be used and for an input
    without a scale.
    """
    if build_config.calibration_dataset is None:
        raise EngineBuildError(
            f"{source.path}: precision int8 is calibrated on a dataset: expected calibration_dataset, found none"
        )
    dataset = CalibrationDataset.open(
        build_config.calibration_dataset, built.inputs, build_config.optimization_profiles
    )
    binding = CalibrationBinding(
        dataset_sha256=dataset.sha256,
        source_sha256=source.sha256,
        calibrator=CALIBRATOR,
        library=LIBRARY,
        batches=dataset.count,
    )
    cache, batches_run = load_calibration(cache_path, binding), 0
    if cache is None:
        cache, batches_run = CalibrationCache(binding, _calibrate(source, dataset)), dataset.count
    _refuse_missing_scales(source, dataset, cache, built.inputs)
    calibrated = msgspec.structs.replace(
        built,
        data=built.data + cache.table_text,
        dataset_sha256=dataset.sha256,
        calibration_cache=cache.encode(),
    )
    return calibrated, batches_run


def _calibrate(source: SourceModel, dataset: CalibrationDataset) -> bytes:
    """The scale of each input is its largest magnitude by 127."""
    feed = BatchFeed(dataset)
    largest: dict[str, float] = {}
    while (batch := feed.next_batch()) is not None:
        for name, array in batch.items():
            largest[name] = max(largest.get(name, 0.0), float(np.abs(array.astype(np.float64)).max(initial=0)))
    feed.finish()
    scales = {name: magnitude / _INT8_MAX for name, magnitude in largest.items()}
    try:
        return CalibrationTable(version="0", calibrator=CALIBRATOR, scales=scales).format()
    except ValueError as error:
        raise EngineBuildError(f"{source.path}: no calibration table can be written: {error}") from error


def _refuse_missing_scales(
    source: SourceModel, dataset: CalibrationDataset, cache: CalibrationCache, inputs: Mapping[str, TensorSpec]
) -> None:
    unscaled = missing_scales(cache.table, inputs)
    if unscaled:
        raise EngineBuildError(
            f"{source.path}: expected a scale for each input, found none for {', '.join(unscaled)}: zero in every batch"
            f" of {dataset.path}; calibrate on inputs as they come in flight"
        )
