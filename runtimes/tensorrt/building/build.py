"""One engine, from an audited model to a plan that is what was asked for, whichever tool builds it."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import msgspec

from messages import C7Error, EngineBuildError
from messages.lifecycle import Sha256
from runtimes.build_report import BuilderName, BuildReport
from runtimes.calibration.batch_feed import BatchFeed
from runtimes.cuda.port import Cuda
from runtimes.inference_runtime import BuildConfig
from runtimes.onnx_model import AuditedModel, floating_activations
from runtimes.source_model import SourceModel
from runtimes.tensorrt.bindings import Engine
from runtimes.tensorrt.building.build_findings import FindingsReader
from runtimes.tensorrt.building.build_job import TRTEXEC_TIMEOUT_S, BuildJob, BuiltPlan
from runtimes.tensorrt.building.built_engine_audit import audited_report
from runtimes.tensorrt.building.calibrator import Calibrator, entropy_calibrator
from runtimes.tensorrt.building.int8_scales import Int8Scales
from runtimes.tensorrt.building.network import Builder
from runtimes.tensorrt.building.progress import progress_monitor
from runtimes.tensorrt.building.recipe import EngineRecipe
from runtimes.tensorrt.building.timings import fitting_timings, keep_timings, read_timings
from runtimes.tensorrt.building.with_builder import build_with_api
from runtimes.tensorrt.building.with_polygraphy import build_with_polygraphy
from runtimes.tensorrt.building.with_trtexec import build_with_trtexec
from runtimes.tensorrt.faults import LogLine, error_of_build
from runtimes.tensorrt.log import Listener, TensorrtLog

_RENDERINGS: dict[BuilderName, Callable[[BuildJob], BuiltPlan]] = {
    "polygraphy": build_with_polygraphy,
    "trtexec": build_with_trtexec,
    "api": build_with_api,
}
_building = threading.Lock()
_CALIBRATED = "its scales are there"
_NO_OBJECT = "factory function returned nullptr"
"""What the bindings raise where TensorRT makes no Builder or parser; its log says why."""


class TensorrtBuild(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """What goes into a `BuiltEngine`: the plan, and what it was built with. `calibration_cache` is encoded."""

    data: bytes
    build_tool: str
    report: BuildReport
    dataset_sha256: Sha256 | None = None
    calibration_cache: bytes | None = None
    timing_cache_sha256: Sha256 | None = None


def build_engine(
    trt: ModuleType,
    log: TensorrtLog,
    cuda: Cuda,
    recipe: EngineRecipe,
    source: SourceModel,
    model: AuditedModel,
    build_config: BuildConfig,
    *,
    builder: BuilderName,
    open_engine: Callable[[bytes], Engine],
    calibration_path: Path | None = None,
    timing_cache_dir: Path | None = None,
    cancelled: Callable[[], str] = str,
    tell: Callable[[str], None] | None = None,
    trtexec_timeout_s: float = TRTEXEC_TIMEOUT_S,
) -> TensorrtBuild:
    """Build, and refuse what is weaker than the recipe. Blocks for seconds to hours; nothing else builds meanwhile.

    `open_engine` deserialises a plan, for what its inspector says. A calibration cache at `calibration_path` is used
    where it can be trusted. `cancelled` is asked now and then for a reason to end, "" for none. `tell` hears how far
    the build is, from TensorRT's threads.

    Raises EngineBuildError, CalibrationCacheError, OutOfMemoryError or DeviceFaultError with TensorRT's words, and
    RuntimeNotAvailableError where the builder's tool is missing.
    """
    cuda.make_current()
    scales = calibrator = None
    reader = FindingsReader(recipe.workspace_bytes, floating_activations(model.data) if recipe.calibrated else None)
    if recipe.calibrated:
        scales = Int8Scales(source, build_config, model.inputs, str(trt.__version__), calibration_path)
        calibrator = entropy_calibrator(trt, cuda, BatchFeed(scales.dataset), scales.trusted_table)
    with (
        _alone(source.path),
        tempfile.TemporaryDirectory(prefix="c7-tensorrt-") as folder,
        log.listening("WARNING", read=None if builder == "trtexec" else reader.take) as heard,
    ):
        onnx = Path(folder) / "model.onnx"
        try:
            onnx.write_bytes(model.data)
            timings, dropped = _usable_timings(trt, log, read_timings(timing_cache_dir))
            job = BuildJob(
                trt=trt,
                log=log,
                recipe=recipe,
                onnx=onnx,
                monitor=progress_monitor(trt, _ending(cancelled, calibrator), tell),
                device_index=cuda.index,
                calibrator=calibrator,
                timings=timings,
                cancelled=cancelled,
                tell=tell,
                read=reader.take,
                timeout_s=trtexec_timeout_s,
            )
            built, table = _built(job, builder, calibrator, heard)
        except OSError as error:
            raise EngineBuildError(
                f"{source.path}: the build's folder {folder} cannot be used: {error.strerror}; a build needs room for"
                " the model, its engine and its timings there (TMPDIR names another place)"
            ) from error
        except TypeError as error:  # of the builder that only looks at the timings
            if _NO_OBJECT not in str(error):
                raise
            raise error_of_build(str(source.path), heard.lines) from error
        except C7Error as error:
            raise type(error)(str(error).replace(str(onnx), str(source.path))) from error
        finally:
            if calibrator is not None:
                calibrator.close()
        report = audited_report(
            trt,
            open_engine(built.data),
            recipe,
            built,
            subject=str(source.path),
            builder=builder,
            findings=reader.findings(),
            notes=(dropped,) if dropped else (),
        )
    return TensorrtBuild(
        data=built.data,
        build_tool=f"tensorrt {trt.__version__} ({builder})",
        report=report,
        dataset_sha256=None if scales is None else scales.dataset.sha256,
        calibration_cache=None if scales is None or table is None else scales.cache_of(table).encode(),
        timing_cache_sha256=keep_timings(timing_cache_dir, built.timings),
    )


@contextmanager
def _alone(source: Path) -> Iterator[None]:
    """Raises EngineBuildError where this process builds already: each build would be in the timings of the other, and
    Polygraphy has one logger for all.
    """
    if not _building.acquire(blocking=False):
        raise EngineBuildError(f"{source}: another engine is being built in this process; build one after the other")
    try:
        yield
    finally:
        _building.release()


def _built(
    job: BuildJob, builder: BuilderName, calibrator: Calibrator | None, heard: Listener
) -> tuple[BuiltPlan, bytes | None]:
    """The plan, and the calibration table that it was built with."""
    table = None
    try:
        if calibrator is not None and builder == "trtexec":
            table = _calibrated(job, calibrator, heard)
            job = msgspec.structs.replace(job, scales=table)
        built = _RENDERINGS[builder](job)
    except TypeError as error:
        if _NO_OBJECT not in str(error):
            raise
        raise _failure(job, calibrator, heard.lines) from error
    if not built.data:
        raise _failure(job, calibrator, built.lines if builder == "trtexec" else heard.lines)
    if calibrator is not None and table is None:
        table = calibrator.finish()
    return built, table


def _ending(cancelled: Callable[[], str], calibrator: Calibrator | None) -> Callable[[], str]:
    """A build whose calibration went wrong is not worth its hours."""

    def why() -> str:
        return cancelled() or ("the calibration failed" if calibrator is not None and calibrator.failure else "")

    return why


def _usable_timings(trt: ModuleType, log: TensorrtLog, timings: bytes) -> tuple[bytes, str]:
    if not timings:
        return b"", ""
    builder: Builder = trt.Builder(log)
    return fitting_timings(builder.create_builder_config(), timings)


def _calibrated(job: BuildJob, calibrator: Calibrator, heard: Listener) -> bytes:
    """The scales for a build in another process: what was trusted, else a build here that ends once they are there."""
    if calibrator.trusted is not None:
        return calibrator.trusted

    def enough() -> str:
        return job.cancelled() or (_CALIBRATED if calibrator.table is not None or calibrator.failure else "")

    here = msgspec.structs.replace(job, monitor=progress_monitor(job.trt, enough, job.tell))
    build_with_api(here)
    if calibrator.table is None:
        raise _failure(here, calibrator, heard.lines)
    return calibrator.finish()


def _failure(job: BuildJob, calibrator: Calibrator | None, lines: Sequence[LogLine]) -> BaseException:
    """Why there is no plan: what our callbacks raised, else the wish to end, else what TensorRT's log says."""
    if calibrator is not None and calibrator.failure is not None:
        return calibrator.failure
    if job.monitor.failure is not None:
        return job.monitor.failure
    if job.monitor.ended_because:
        return EngineBuildError(f"{job.onnx}: the build was ended: {job.monitor.ended_because}")
    return error_of_build(str(job.onnx), lines)
