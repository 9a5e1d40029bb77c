"""Building: Builder, network, parser, configuration, timing cache, and the callbacks that these take."""

from __future__ import annotations

from .builder import Builder
from .builder_config import IBuilderConfig, IOptimizationProfile
from .callbacks import (
    IInt8Calibrator,
    IInt8EntropyCalibrator,
    IInt8EntropyCalibrator2,
    IInt8LegacyCalibrator,
    IInt8MinMaxCalibrator,
    IProgressMonitor,
)
from .network import ILayer, INetworkDefinition, ITensor
from .parser import OnnxParser, ParserError
from .timing_cache import ITimingCache

__all__ = [
    "Builder",
    "IBuilderConfig",
    "IInt8Calibrator",
    "IInt8EntropyCalibrator",
    "IInt8EntropyCalibrator2",
    "IInt8LegacyCalibrator",
    "IInt8MinMaxCalibrator",
    "ILayer",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "OnnxParser",
    "ParserError",
]
