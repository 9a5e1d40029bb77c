"""The recipe carried out by trtexec, in a process of its own.

Read in samples/common of tag v10.3.0, and what is done about each:

- `--int8` without `--calib` calibrates on random numbers, and so does `--calib` with a file that cannot be opened
  (`RndInt8Calibrator`): it is only given a table that was checked, in a file that was just written.
- `--timingCacheFile` is taken with `ignoreMismatch` (samples/utils/timingCache.cpp): it gets a copy of timings that
  fit. Of a file that is not there it warns, with its path; one of no bytes is a new cache.
- With `--calib` the profile is the calibration's too, and an input that is not in it ends trtexec ("Calibration profile
  for tensor X cannot be found!"), though its shape be fixed: each is given. A model of fixed shapes may be given none.
- `--stronglyTyped` with a precision only warns and drops the precision: a recipe never has both.
- Shapes and constraints are lists of `name:value` with commas and quotes in a meaning of their own: names with these
  are refused.
- A version of its own is possible, and its plan would be refused at the load: it is compared.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from messages import EngineBuildError, RuntimeNotAvailableError
from messages.errors import printable
from runtimes.build_report import COMMAND_MAX_CHARS
from runtimes.inference_runtime import Shape
from runtimes.store.engine_artifact import ENGINE_MAX_BYTES
from runtimes.store.regular_file import read_regular_file
from runtimes.tensorrt.building.build_job import BuildJob, BuiltPlan
from runtimes.tensorrt.building.network import ParsedModel, hold_to_fp32, refuse_shape_inputs
from runtimes.tensorrt.building.timings import TIMING_FILE, TIMING_MAX_BYTES
from runtimes.tensorrt.building.trtexec_process import run_trtexec

JETPACK_TRTEXEC = Path("/usr/src/tensorrt/bin/trtexec")
"""Where JetPack's package puts it, which is on no PATH."""
PLAN_FILE = "engine.plan"
SCALES_FILE = "scales.cache"
_MEANS_SOMETHING = ",'*"
_NAMELESS = re.compile(r"\(Unnamed Layer\* \d+\) \[[A-Za-z ]+\]")
"""A layer without a name of its own: the star is in it, and as a pattern it fits no other (findPlausible of
samples/common/sampleUtils.h)."""
_SHOWN_CHARS = 300


def find_trtexec() -> Path:
    """Raises RuntimeNotAvailableError."""
    found = shutil.which("trtexec")
    if found is not None:
        return Path(found).resolve()
    if JETPACK_TRTEXEC.exists():
        return JETPACK_TRTEXEC
    raise RuntimeNotAvailableError(
        f'[runtime.tensorrt] builder = "trtexec": expected trtexec on the PATH or as {JETPACK_TRTEXEC}, found neither;'
        ' install the package libnvinfer-bin, or set builder = "polygraphy"'
    )


def build_with_trtexec(job: BuildJob) -> BuiltPlan:
    """Raises EngineBuildError where trtexec fails, with its words, and for names that its options cannot take."""
    folder = job.onnx.parent
    plan, timings, scales = folder / PLAN_FILE, folder / TIMING_FILE, folder / SCALES_FILE
    if job.recipe.calibrated:
        if job.scales is None:
            raise EngineBuildError(f"{job.onnx}: trtexec is given no INT8 build without scales: it would make them up")
        scales.write_bytes(job.scales)
    timings.write_bytes(job.timings)
    command = trtexec_command(job, find_trtexec(), *_of_network(job))
    code, output = run_trtexec(command, timeout_s=job.timeout_s, cancelled=job.cancelled, read=job.read)
    built = BuiltPlan(flags=job.recipe.set_flags, command=command, lines=tuple(output.lines))
    version = ".".join(str(job.trt.__version__).split(".")[:3])
    if output.version not in ("", version):
        raise EngineBuildError(
            f"{command[0]}: expected the trtexec of TensorRT {version}, found {output.version}, whose plans would be"
            " refused here; put the one of the installed TensorRT first on the PATH"
        )
    if code != 0 or output.verdict != "PASSED":
        if any(line.severity != "WARNING" for line in output.lines):
            return built  # TensorRT's own errors say more
        raise EngineBuildError(
            f"{job.onnx}: trtexec ended with exit code {code} and verdict {output.verdict or 'none'}; its last line:"
            f" {printable(output.last, _SHOWN_CHARS) or 'none'}; its command: {printable(' '.join(command))}"
        )
    try:
        return BuiltPlan(
            data=read_regular_file(plan, max_bytes=ENGINE_MAX_BYTES),
            timings=read_regular_file(timings, max_bytes=TIMING_MAX_BYTES),
            flags=job.recipe.set_flags,
            command=command,
            lines=tuple(output.lines),
        )
    except OSError as error:
        raise EngineBuildError(
            f"{error.filename or plan}: trtexec says that it passed, and its file cannot be read: {error.strerror}"
        ) from error


def trtexec_command(
    job: BuildJob, trtexec: Path, held_layers: Iterable[str] = (), fixed_shapes: Mapping[str, Shape] | None = None
) -> tuple[str, ...]:
    """Pure. `held_layers` and the inputs of `fixed_shapes` are the parser's.

    Raises EngineBuildError for names that trtexec's options cannot take, and for more than are kept.
    """
    recipe, folder = job.recipe, job.onnx.parent
    held = tuple(held_layers)
    fixed = fixed_shapes or {}
    profile = tuple(each for each in recipe.profile if each[0] not in fixed)
    if profile and recipe.calibrated:
        profile += tuple((name, shape, shape, shape) for name, shape in fixed.items())
    _refuse_names((*(name for name in held if _NAMELESS.fullmatch(name) is None), *(name for name, *_ in profile)))
    command = [
        str(trtexec),
        f"--onnx={job.onnx}",
        f"--saveEngine={folder / PLAN_FILE}",
        f"--timingCacheFile={folder / TIMING_FILE}",
        f"--memPoolSize=workspace:{recipe.workspace_bytes // 1024**2}M",
        f"--builderOptimizationLevel={recipe.optimization_level}",
        "--profilingVerbosity=detailed",
        "--skipInference",
        f"--device={job.device_index}",
    ]
    if "TF32" in recipe.cleared_flags:
        command.append("--noTF32")
    if recipe.strongly_typed:
        command.append("--stronglyTyped")
    command += [f"--{flag.lower()}" for flag in ("FP16", "INT8") if flag in recipe.set_flags]
    if recipe.calibrated:
        command.append(f"--calib={folder / SCALES_FILE}")
    if held:
        command += ["--precisionConstraints=obey", f"--layerPrecisions={','.join(f'{name}:fp32' for name in held)}"]
    for index, option in enumerate(("minShapes", "optShapes", "maxShapes"), start=1):
        ranges = [f"{each[0]}:{_extents(each[index])}" for each in profile]  # type: ignore[arg-type]
        if ranges:
            command.append(f"--{option}={','.join(ranges)}")
    if sum(map(len, command)) > COMMAND_MAX_CHARS:
        raise EngineBuildError(
            f"{job.onnx}: trtexec's command line would have {sum(map(len, command))} characters, of which"
            f' {COMMAND_MAX_CHARS} are kept; build with [runtime.tensorrt] builder = "polygraphy"'
        )
    return tuple(command)


def _of_network(job: BuildJob) -> tuple[tuple[str, ...], dict[str, Shape]]:
    """What the parser makes of the nodes to be held, and the inputs of one shape.

    trtexec takes names of layers, and passes over what is none.
    """
    model = ParsedModel(job.trt, job.log, job.onnx, strongly_typed=job.recipe.strongly_typed)
    refuse_shape_inputs(model.network)
    inputs = (model.network.get_input(index) for index in range(model.network.num_inputs))
    shapes = {each.name: tuple(each.shape[axis] for axis in range(len(each.shape))) for each in inputs}
    fixed = {name: shape for name, shape in shapes.items() if -1 not in shape}
    return hold_to_fp32(job.trt, model.network, job.recipe.fp32_nodes), fixed


def _extents(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _refuse_names(names: Iterable[str]) -> None:
    strange = sorted({name for name in names if not name.isprintable() or set(name) & set(_MEANS_SOMETHING)})
    if strange:
        raise EngineBuildError(
            f"trtexec's options cannot take the names {', '.join(map(repr, strange[:3]))}; build with"
            ' [runtime.tensorrt] builder = "polygraphy" or "api"'
        )
