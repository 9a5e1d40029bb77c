"""Boards: sysfs trees as small text files, laid out under a temporary folder for the source to read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

TREES = Path(__file__).parent / "trees"


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Lay out `trees/NAME.txt` and return what stands for /sys.

    `path = value` is an attribute, `path -> target` a link. `path EAGAIN` is a FIFO that is open for writing and
    empty: reading it without blocking fails with EAGAIN, as a switched-off sensor does.
    """
    with ExitStack() as open_fifos:

        def lay_out(name: str) -> Path:
            root = tmp_path / "sys"
            for line in (TREES / f"{name}.txt").read_text().splitlines():
                if not line or line.startswith("#"):
                    continue
                path = root / line.split()[0]
                path.parent.mkdir(parents=True, exist_ok=True)
                if line.endswith(" EAGAIN"):
                    os.mkfifo(path)
                    descriptor = os.open(path, os.O_RDWR)
                    open_fifos.callback(os.close, descriptor)
                elif " -> " in line:
                    path.symlink_to(line.partition(" -> ")[2])
                else:
                    path.write_text(line.partition(" = ")[2] + "\n")
            return root

        yield lay_out


@pytest.fixture
def set_cooling() -> Callable[[Path, str, int], None]:
    """Set the state of the cooling device of one type."""

    def set_state(root: Path, kind: str, state: int) -> None:
        (device,) = [
            path.parent
            for path in (root / "class" / "thermal").glob("cooling_device*/type")
            if path.read_text().strip() == kind
        ]
        (device / "cur_state").write_text(f"{state}\n")

    return set_state
