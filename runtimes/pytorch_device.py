"""Whether torch and the configured device are here."""

from __future__ import annotations

import contextlib
import importlib
from types import ModuleType

from messages import RuntimeNotAvailableError

_OPENS_PROGRAMS = "torch._export.serde.serialize"
"""What torch imports for the first program that it opens: 70 MB, which are in no engine's measurement."""


def import_torch() -> ModuleType:
    """torch itself, with what opens programs. Raises RuntimeNotAvailableError naming the extra."""
    try:
        import torch
    except ImportError as error:
        raise RuntimeNotAvailableError(
            f"pytorch_fp16 needs torch, which cannot be imported ({error}); install it with"
            " c7-inference's extra `torch`, on a Jetson JetPack's own build"
        ) from error
    # It is imported with the runtime, so that the memory that is available is read after it. A torch that has another
    # name for it imports that one later.
    with contextlib.suppress(ImportError):
        importlib.import_module(_OPENS_PROGRAMS)
    return torch


def require_cuda(torch: ModuleType, index: int) -> None:
    """Raises RuntimeNotAvailableError where torch has no such CUDA device."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise RuntimeNotAvailableError(
            f"pytorch_fp16[cuda:{index}]: expected a CUDA device {index}, found {count} with torch"
            f" {torch.__version__} ({build}); install the driver and a CUDA build of torch, or configure device ="
            ' "cpu" explicitly'
        )
