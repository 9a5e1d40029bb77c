"""The double of CUDA under this one, and TensorRT's words for what it says.

`import cuda` finds the double where `import tensorrt` found this one: both lie in one folder of `sys.path`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core import CORE

if TYPE_CHECKING:
    from tests.doubles.cuda.double import DEVICE
    from tests.doubles.cuda.error_codes import TEXTS, DeviceError
else:
    from cuda.double import DEVICE
    from cuda.error_codes import TEXTS, DeviceError

__all__ = ["DEVICE", "DeviceBlock", "DeviceError", "fails", "lost", "report_cuda"]

_OUT_OF_MEMORY = 2


def fails(call: str, recorder: Any) -> bool:
    """Whether a test lets this call fail; then its words are said."""
    failure = CORE.injected(call)
    if failure is None:
        return False
    CORE.report(recorder, failure.code, failure.text)
    return not failure.goes_on


def lost(where: str, recorder: Any) -> bool:
    """Whether the device answers no more, which is said then. After a sticky error "any further CUDA work will return
    the same error" (`driver_types.h`), TensorRT's included.
    """
    if not DEVICE.error_code:
        return False
    report_cuda(recorder, where, DEVICE.error_code)
    return True


def report_cuda(recorder: Any, where: str, code: int) -> None:
    """The form of 10.3.0: "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (invalid resource handle)"
    (NVIDIA/TensorRT#4191).
    """
    CORE.report(recorder, "INTERNAL_ERROR", f"{where}: Error Code 1: Cuda Runtime ({TEXTS[code]})")


class DeviceBlock:
    """Memory that TensorRT has of CUDA by itself: weights, and the activations of a context that manages them."""

    def __init__(self, size_bytes: int, recorder: Any, on_failure: Callable[[], None]) -> None:
        """Raises MemoryError, with all said, where there is none.

        The lines are those of a board on 10.3.0 and of a card on 10.x (NVIDIA/TensorRT#4258, #4254).
        """
        self.size_bytes = size_bytes
        code, address = DEVICE.call("cudaMalloc", lambda: DEVICE.memory.allocate(max(size_bytes, 1), "device"))
        if code:
            report_cuda(recorder, "[defaultAllocator.cpp::allocate::31]", code)
            if code == _OUT_OF_MEMORY:
                CORE.say(
                    "WARNING",
                    f"Requested amount of GPU memory ({size_bytes} bytes) could not be allocated. There may not be"
                    " enough free memory for allocation to succeed.",
                )
                on_failure()
            raise MemoryError
        self.address = int(address)  # type: ignore[call-overload]
        self._generation = DEVICE.memory

    def __del__(self) -> None:
        if hasattr(self, "address") and self._generation is DEVICE.memory:
            DEVICE.call("cudaFree", lambda: DEVICE.memory.free(self.address, "device"))
