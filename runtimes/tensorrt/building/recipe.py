"""What TensorRT is asked for when it builds one engine: decided here, and carried out alike by every builder.

TensorRT's precision flags are permissions. `NvInfer.h` of 10.3 has of kFP16 "FP16 layer selection, with FP32 fallback"
and of kINT8 the same, "with FP16 fallback if kFP16 also specified". So:

- A model that says its own types (it computes in fp16, or quantises and dequantises) is built strongly typed: TensorRT
  takes them as they are, and no flag is set.
- A model in fp32 gets the permissions of its precision, and `layer_audit` looks at what came of them. `fp16` is FP16.
  `int8` is INT8 with scales from calibration, and FP16 for what has no int8 kernel. `mixed` is FP16, and INT8 too where
  a dataset is given; the operations that lose most in fp16 are then held to fp32, and TensorRT has to obey.
- TF32, which TensorRT has on, is off: ten bits of mantissa are not fp32.
"""

from __future__ import annotations

import msgspec

from messages import EngineBuildError
from runtimes.inference_runtime import BuildConfig, Precision, ProfileRange
from runtimes.onnx_types import OnnxTypes

OPTIMIZATION_LEVEL = 3
"""TensorRT's own default, of 0 to 5."""
_QUANTIZED = "int8"


class EngineRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """What every builder has to carry out.

    `set_flags` and `cleared_flags` are names of `BuilderFlag`. `profile` is the one optimisation profile, whose optimal
    shapes calibration runs at. `fp32_nodes` are ONNX nodes whose layers are held to fp32. `calibrated` says that INT8
    needs scales.
    """

    precision: Precision
    strongly_typed: bool
    set_flags: tuple[str, ...]
    cleared_flags: tuple[str, ...]
    profile: tuple[ProfileRange, ...]
    workspace_bytes: int
    fp32_nodes: tuple[str, ...]
    calibrated: bool
    optimization_level: int


def engine_recipe(
    model: str, build_config: BuildConfig, types: OnnxTypes, *, optimization_level: int = OPTIMIZATION_LEVEL
) -> EngineRecipe:
    """Pure. Raises EngineBuildError naming `model` for a precision that this model cannot have, and what to do."""
    _refuse_what_contradicts(model, build_config, types)
    precision = build_config.precision
    typed = bool(types.narrow)
    has_dataset = build_config.calibration_dataset is not None
    calibrated = not typed and (precision == "int8" or (precision == "mixed" and has_dataset))
    held = types.delicate if precision == "mixed" and not typed else ()
    flags: list[str] = []
    if not typed:
        flags += ["FP16", *(["INT8"] if calibrated else []), *(["OBEY_PRECISION_CONSTRAINTS"] if held else [])]
    return EngineRecipe(
        precision=precision,
        strongly_typed=typed,
        set_flags=tuple(sorted(flags)),
        cleared_flags=("TF32",),
        profile=build_config.optimization_profiles,
        workspace_bytes=build_config.workspace_mb * 1024**2,
        fp32_nodes=held,
        calibrated=calibrated,
        optimization_level=optimization_level,
    )


def _refuse_what_contradicts(model: str, build_config: BuildConfig, types: OnnxTypes) -> None:
    precision = build_config.precision
    narrow = " and ".join(types.narrow)
    if precision == "fp32":
        raise EngineBuildError(
            f"{model}: tensorrt does precision fp16, int8 or mixed, got fp32, which belongs to the CPU"
        )
    if "bf16" in types.narrow:
        raise EngineBuildError(
            f"{model}: expected a model in fp32, fp16 or with QuantizeLinear, found one that computes in bf16, which is"
            " no precision here; export it in fp16 or fp32"
        )
    if precision == "fp16" and _QUANTIZED in types.narrow:
        raise EngineBuildError(
            f"{model}: expected fp16, found a model that quantises to int8; give it precision mixed or int8, or export"
            " it without QuantizeLinear"
        )
    if precision == "int8" and types.narrow and _QUANTIZED not in types.narrow:
        raise EngineBuildError(
            f"{model}: int8 is calibrated on an fp32 model or comes with QuantizeLinear in it, found a model in"
            f" {narrow}; export it in fp32"
        )
    if types.narrow and build_config.calibration_dataset is not None:
        raise EngineBuildError(
            f"{model}: expected no calibration_dataset for a model that says its own types ({narrow}), because TensorRT"
            " calibrates none such; leave it out, and where a flight plan asks for it with int8, give precision mixed"
        )
    if precision == "int8" and not types.narrow and build_config.calibration_dataset is None:
        raise EngineBuildError(
            f"{model}: int8 is calibrated on a dataset, or comes with QuantizeLinear in the model: expected"
            " calibration_dataset, found none"
        )
