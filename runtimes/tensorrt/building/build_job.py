"""One build, as every builder is given it, and what a builder hands back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import msgspec

from runtimes.tensorrt.building.calibrator import Calibrator
from runtimes.tensorrt.building.progress import Monitor
from runtimes.tensorrt.building.recipe import EngineRecipe
from runtimes.tensorrt.faults import LogLine
from runtimes.tensorrt.log import TensorrtLog

TRTEXEC_TIMEOUT_S = 4 * 3600.0


class BuildJob(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """`onnx` is the audited model in a folder of its own, where a builder may write.

    `log` is the process-wide logger. `calibrator` is there where the recipe is calibrated, and `scales` is a trusted
    calibration table where there is one. `timings` fit this device. `cancelled` gives a reason once the build is to
    end, else "". `read` is given each line of a log that is not this process's. `tell` hears how far it is.
    """

    trt: ModuleType
    log: TensorrtLog
    recipe: EngineRecipe
    onnx: Path
    monitor: Monitor
    device_index: int = 0
    calibrator: Calibrator | None = None
    scales: bytes | None = None
    timings: bytes = b""
    cancelled: Callable[[], str] = str
    read: Callable[[LogLine], None] | None = None
    tell: Callable[[str], None] | None = None
    timeout_s: float = TRTEXEC_TIMEOUT_S


class BuiltPlan(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """`data` is the plan, b"" where TensorRT made none. `lines` is the log of a process of its own."""

    data: bytes = b""
    timings: bytes = b""
    flags: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    lines: tuple[LogLine, ...] = ()
