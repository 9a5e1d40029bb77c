"""The command line as `samples/common/sampleOptions.cpp` of tag v10.3.0 takes it, no more and no less.

An argument is split at its first `=`; of two with one name only one is looked at, and what is left over at the end is
an unknown option. Names and values of a list are split at the last `:`, and its entries at each `,`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Shape = tuple[int, ...]
Ranges = dict[str, list[Shape]]

_UNITS = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TYPES = ("fp32", "fp16", "bf16", "int8", "fp8", "int32", "int64", "bool", "uint8", "int4")
_VERBOSITIES = {"layer_names_only": 0, "none": 1, "detailed": 2}
_NOT_HERE = """
allocationStrategy allowGPUFallback allowWeightStreaming avgRuns avgTiming best bf16 buildDLAStandalone calibProfile
consistency directIO dumpLayerInfo dumpOptimizationProfile dumpOutput dumpProfile dumpRawBindingsToFile dumpRefit
duration dynamicPlugins errorOnTimingCacheMiss excludeLeanRuntime exportLayerInfo exportOutput exportProfile
exportTimes exposeDMA fp8 getPlanVersionOnly hardwareCompatibilityLevel help idleTime ignoreParsedPluginLibs
infStreams inputIOFormats int4 iterations layerDeviceTypes layerOutputTypes leanDLLPath loadEngine loadInputs
markDebug maxAuxStreams maxShapesCalib minShapesCalib noBuilderCache noCompilationCache noDataTransfers
optShapesCalib outputIOFormats percentile persistentCacheRatio pi pluginInstanceNorm plugins preview profile refit
restricted runtimePlatform safe saveDebugTensors separateProfileRun serialized setPluginsToSerialize shapes
sleepTime sparsity staticPlugins std streams stripAllWeights stripWeights tacticSources tempdir tempfileControls
threads timeDeserialize timeRefit useCudaGraph useDLACore useManagedMemory useProfile useRuntime useSpinWait vc
verbose versionCompatible warmUp weightStreamingBudget weightless
"""
"""Real options of 10.3 that this program does nothing with: it says so and fails, rather than build another engine."""


class OptionError(Exception):
    """What `std::invalid_argument` says, in trtexec's words where the source has them."""


@dataclass
class Options:
    onnx: str = ""
    save_engine: str = ""
    timing_cache_file: str = ""
    calib: str = ""
    workspace_bytes: int | None = None
    optimization_level: int = 3
    verbosity: int = 0
    device: int = 0
    skip_inference: bool = False
    tf32: bool = True
    strongly_typed: bool = False
    fp16: bool = False
    int8: bool = False
    constraints: str = "none"
    layer_precisions: dict[str, str] = field(default_factory=dict)
    ranges: Ranges = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def calibration_ranges(self) -> Ranges:
        """ "if (int8 && calibCheck && !optProfiles[calibProfile].empty() && shapesCalib.empty())"."""
        return self.ranges if self.int8 and self.calib else {}


def parse(arguments: list[str]) -> Options:
    """Raises OptionError."""
    given = [_split(argument) for argument in arguments]
    options = Options()

    def take(name: str) -> str | None:
        for index, (option, value) in enumerate(given):
            if option == name:
                del given[index]
                return value
        return None

    options.onnx = take("--onnx") or ""
    _take_shapes(options, [take(name) for name in ("--minShapes", "--optShapes", "--maxShapes")])
    pools = take("--memPoolSize")
    if pools is not None:
        _take_pools(options, pools)
    options.tf32 = take("--noTF32") is None
    options.fp16 = take("--fp16") is not None
    options.int8 = take("--int8") is not None
    options.strongly_typed = take("--stronglyTyped") is not None
    if options.strongly_typed:
        for flag, title in (("fp16", "kFP16"), ("int8", "kINT8")):
            if getattr(options, flag):
                setattr(options, flag, False)
                options.warnings.append(
                    f"Invalid usage, setting {flag} mode is not allowed if graph is strongly typed. Disabling"
                    f" BuilderFlag::{title}."
                )
    options.skip_inference = take("--skipInference") is not None
    _take_constraints(options, take("--precisionConstraints") or "", take("--layerPrecisions") or "")
    options.calib = take("--calib") or ""
    verbosity = take("--profilingVerbosity") or "layer_names_only"
    if verbosity not in _VERBOSITIES:
        raise OptionError(f"Unknown profilingVerbosity: {verbosity}")
    options.verbosity = _VERBOSITIES[verbosity]
    options.save_engine = take("--saveEngine") or ""
    options.timing_cache_file = take("--timingCacheFile") or ""
    level, device = take("--builderOptimizationLevel"), take("--device")
    options.optimization_level = options.optimization_level if level is None else _stoi(level)
    options.device = 0 if device is None else _stoi(device)
    if given:
        name, value = given[0]
        known = name.removeprefix("--") in _NOT_HERE.split()
        raise OptionError(f"{'No part of this double' if known else 'Unknown option'}: {name} {value}")
    if not options.onnx:
        raise OptionError("Model missing or format not recognized")
    return options


def _split(argument: str) -> tuple[str, str]:
    name, _, value = argument.partition("=")
    return name, value


def _take_shapes(options: Options, lists: list[str | None]) -> None:
    if any(each is None for each in lists) and any(each is not None for each in lists):
        raise OptionError("No part of this double: shapes that are broadcast from one list to another")
    for position, text in enumerate(each for each in lists if each):
        for name, value in _pairs(text):
            extents = () if value == "scalar" else tuple(_stoi(extent) for extent in value.split("x"))
            options.ranges.setdefault(name, [(), (), ()])[position] = extents


def _take_pools(options: Options, text: str) -> None:
    for name, value in _pairs(text):
        spelled = value if value[-1:].isalpha() else f"{value}M"
        found = re.fullmatch(r"(\d+(?:\.\d*)?)([A-Za-z])", spelled)
        if found is None or found[2].upper() not in _UNITS:
            raise OptionError(f'Error parsing "{value}": conversion failure: failed to parse --memPoolSize.')
        if name != "workspace":
            raise OptionError(f"Unknown memory pool: {name}")
        options.workspace_bytes = int(float(found[1]) * _UNITS[found[2].upper()])


def _take_constraints(options: Options, constraints: str, precisions: str) -> None:
    if constraints not in ("", "obey", "prefer", "none"):
        raise OptionError(f"Unknown precision constraints: {constraints}")
    options.constraints = constraints or "none"
    for name, kind in _pairs(precisions):
        if kind not in _TYPES:
            raise OptionError(f"Invalid DataType {kind}")
        options.layer_precisions[name] = kind
    if options.layer_precisions and options.constraints == "none":
        options.warnings.append(
            "--layerPrecision/--layerOutputTypes flags have no effect when --precisionConstraints flag is set to"
            ' "none".'
        )


def _pairs(text: str) -> list[tuple[str, str]]:
    """splitNameAndValue: two quotes around a name are taken off, any other number of them is an error."""
    pairs = []
    for entry in text.split(",") if text else []:
        parts = entry.split("'")
        if len(parts) not in (1, 3):
            raise OptionError(f"Found invalid number of 's when parsing {entry}")
        if len(parts) == 3:
            pairs.append((parts[0] + parts[1], parts[2][1:]))
            continue
        name, _, value = entry.rpartition(":")
        pairs.append((name, value))
    return pairs


def _stoi(text: str) -> int:
    """`std::stoi`: the number at the front, whatever follows it."""
    found = re.match(r"\s*[+-]?\d+", text)
    if found is None:
        raise OptionError("stoi")
    return int(found[0])
