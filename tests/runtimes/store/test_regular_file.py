"""A file is read once, from the folder that it was looked for in, and nothing else is read in its place."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from runtimes.store.regular_file import read_regular_file, why_unreadable


def read(path: Path, *, follow_links: bool = False) -> bytes:
    return read_regular_file(path, max_bytes=100, follow_links=follow_links)


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "engine").write_bytes(b"engine")
    assert read(tmp_path / "engine") == b"engine"


def test_a_relative_name_is_read_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "engine").write_bytes(b"engine")
    monkeypatch.chdir(tmp_path)
    assert read(Path("engine")) == b"engine"


def test_a_link_in_place_of_the_file_or_of_its_folder_is_refused(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "engine").write_bytes(b"engine")
    (real / "link").symlink_to(real / "engine")
    (tmp_path / "folder").symlink_to(real)
    with pytest.raises(OSError, match="expected a regular file, found a symbolic link"):
        read(real / "link")
    with pytest.raises(OSError, match=r"expected a folder, found a symbolic link at .*folder"):
        read(tmp_path / "folder" / "engine")


def test_a_source_is_found_through_links(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "model").write_bytes(b"model")
    (real / "link").symlink_to(real / "model")
    (tmp_path / "folder").symlink_to(real)
    assert read(tmp_path / "folder" / "link", follow_links=True) == b"model"


@pytest.mark.parametrize("follow_links", [False, True])
def test_a_missing_file_is_named_in_full(tmp_path: Path, follow_links: bool) -> None:
    for path in (tmp_path / "missing", tmp_path / "no folder" / "missing"):
        with pytest.raises(FileNotFoundError) as refused:
            read(path, follow_links=follow_links)
        assert str(refused.value).endswith((str(path) + "'", str(path.parent) + "'"))


def test_a_folder_that_is_swapped_for_a_link_while_the_file_is_opened_is_the_one_that_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    for each in (folder, other):
        each.mkdir()
        (each / "engine").write_bytes(each.name.encode())
    real_open = os.open

    def swap(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None:
            folder.rename(tmp_path / "moved")
            folder.symlink_to(other)
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap)
    assert read(folder / "engine") == b"folder"
    monkeypatch.undo()
    with pytest.raises(OSError, match="found a symbolic link"):
        read(folder / "engine")


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("missing", "folder"):
        with pytest.raises(OSError, match=r"No such file|found a folder") as refused:
            read(tmp_path / name)
        assert refused.value.errno in (errno.ENOENT, errno.EINVAL)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_that_may_not_be_read_asks_for_the_right_to_and_for_nothing_else() -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", "engine")
    assert why_unreadable(denied, "compile it") == (
        "cannot be read: Permission denied; give this user the right to read it"
    )
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory", "engine")
    assert why_unreadable(gone, "compile it") == "cannot be read: No such file or directory; compile it"
