"""NVIDIA's own Python bindings of TensorRT, of a version that this project knows.

TensorRT 11 has neither calibrators nor precision flags, and its enums have other numbers (NVIDIA's migration guide and
bindings 11.4): it is refused by name before anything of it is called.
"""

from __future__ import annotations

import importlib
import re
from types import ModuleType

from messages import RuntimeNotAvailableError

OLDEST = (10, 3)
"""JetPack 6.2's. Before it some classes have other methods, and none of them was ever compared."""
FIRST_REFUSED = (11,)
_INSTALL = "install JetPack's (`make setup-jetson`), on x86-64 c7-inference's extra `tensorrt`"
_VERSION = re.compile(r"\d+(?:\.\d+)+")


def import_tensorrt() -> ModuleType:
    """The module `tensorrt`. Raises RuntimeNotAvailableError where it, its libraries or a known version is missing."""
    try:
        trt = importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        # OSError: the wheels' front end opens the libraries by name and lets ctypes' error through.
        raise RuntimeNotAvailableError(
            f"tensorrt: expected NVIDIA's Python bindings of TensorRT, which cannot be imported ({error}); {_INSTALL}"
        ) from error
    why_not = why_refused(str(getattr(trt, "__version__", "")))
    if why_not:
        raise RuntimeNotAvailableError(f"tensorrt: {why_not}")
    return trt


def why_refused(version: str) -> str:
    """Pure. Why TensorRT of this version cannot be used, and what to do; "" where it can."""
    expected = f"expected TensorRT {'.'.join(map(str, OLDEST))} or newer, before {FIRST_REFUSED[0]}"
    found = version_numbers(version)
    if not found:
        return f"{expected}, found one without a version ({version!r:.40}); {_INSTALL}"
    if found >= FIRST_REFUSED:
        return (
            f"{expected}, found {version}, which has neither calibrators nor precision flags any more;"
            " install TensorRT 10"
        )
    return "" if found >= OLDEST else f"{expected}, found {version}; {_INSTALL}"


def version_numbers(version: str) -> tuple[int, ...]:
    """Pure. `10.3.0.26` in numbers, as far as they go; () where it opens with none."""
    found = _VERSION.match(version)
    return tuple(int(number) for number in found[0].split(".")) if found else ()
