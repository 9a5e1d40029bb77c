"""What a library takes once is in memory when its runtime stands: the memory budget is read then."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
Module: Any = torch.nn.Module
SavePt2 = Callable[..., Path]

OPENS_A_PROGRAM = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from pathlib import Path
from runtimes.config import C7InferenceConfig
from runtimes.exported_model import open_exported
from runtimes.pytorch_fp16_runtime import PytorchFp16Runtime
PytorchFp16Runtime(C7InferenceConfig(device="cpu"))
before = set(sys.modules)
open_exported(Path(sys.argv[2]).read_bytes())
print(len(set(sys.modules) - before))
"""


class Doubles(Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return x * 2


def test_the_first_program_that_torch_opens_imports_next_to_nothing(save_pt2: SavePt2) -> None:
    """Otherwise it imports 838 modules of 74 MB, which are in no engine's measurement."""
    path = save_pt2("doubles", Doubles(), (torch.zeros(4).half(),))
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", OPENS_A_PROGRAM, ":".join(filter(None, sys.path)), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 50
