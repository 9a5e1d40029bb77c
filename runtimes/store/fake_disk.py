"""A disk that can be full, broken or the last thing a process did, for tests of everything that writes a store."""

from __future__ import annotations

from collections.abc import Callable
from os import DirEntry
from pathlib import Path
from typing import Literal

from runtimes.store.disk import Disk

Operation = Literal[
    "create", "write", "fsync", "replace", "link", "make_folder", "unlink", "remove_folder", "list_folder"
]
Before = Callable[[Operation, Path | None], None]


class FakeDisk(Disk):
    """The real disk, with `before(operation, path)` called ahead of each operation; `path` is None of a descriptor's.

    Raise an OSError there and the operation is refused; end the process there and it is the last one. A write is done
    by half then, as a full disk or a killed process leaves it. Without `fsyncs` none reaches the disk, for tests in
    which no power is cut.
    """

    def __init__(self, before: Before, *, fsyncs: bool = True) -> None:
        self._before = before
        self._fsyncs = fsyncs

    def create(self, path: Path) -> int:
        self._before("create", path)
        return super().create(path)

    def write(self, descriptor: int, data: memoryview) -> int:
        half = len(data) // 2
        written = super().write(descriptor, data[:half]) if half else 0
        self._before("write", None)
        return written if written < half else written + super().write(descriptor, data[half:])

    def fsync(self, descriptor: int) -> None:
        self._before("fsync", None)
        if self._fsyncs:
            super().fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        self._before("replace", source)
        super().replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._before("link", source)
        super().link(source, target)

    def make_folder(self, path: Path) -> None:
        self._before("make_folder", path)
        super().make_folder(path)

    def unlink(self, path: Path) -> None:
        self._before("unlink", path)
        super().unlink(path)

    def remove_folder(self, path: Path) -> None:
        self._before("remove_folder", path)
        super().remove_folder(path)

    def list_folder(self, path: Path) -> list[DirEntry[str]]:
        self._before("list_folder", path)
        return super().list_folder(path)
