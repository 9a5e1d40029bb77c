"""What is stored is counted once, and what does not fit is refused before it is written, with what is missing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import EngineStoreError, TensorSpec
from runtimes.fake_runtime import FAKE_HOST
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry
from runtimes.measurements import MemoryUse
from runtimes.source_model import SourceModel
from runtimes.store.disk import Disk
from runtimes.store.engine_artifact import artifact_files, read_verified
from runtimes.store.engine_store import EngineStore
from runtimes.store.engine_writer import BuiltEngine, sign_off, write_engine
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.staged_generation import stage_generation
from runtimes.store.storage_budget import MIB, room_bytes, stored_bytes


def write(directory: Path, data: bytes, *, room: int | None = None, disk: Disk | None = None) -> EngineCacheEntry:
    return write_engine(
        directory,
        "vpr",
        SourceModel(Path("vpr.onnx"), b"source", sha256_of(b"source")),
        BuiltEngine(data=data, inputs={"x": TensorSpec((1,), "float32")}, outputs={}, build_tool="test"),
        BuildConfig(precision="fp32"),
        "onnx_trt_ep[cpu]",
        FAKE_HOST,
        1,
        room_bytes=room,
        disk=disk or Disk(),
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Small(Disk):
    """A disk that says how much it has left."""

    def __init__(self, free: int | None) -> None:
        self.free = free

    def free_bytes(self, path: Path) -> int | None:
        return self.free


@given(st.integers(1, 10**6), st.integers(0, 10**13))
def test_room_is_the_budget_less_what_is_stored_and_never_negative(budget_mb: int, stored: int) -> None:
    room = room_bytes(budget_mb, stored)
    assert room == (budget_mb * MIB - stored if stored < budget_mb * MIB else 0)


def test_a_file_with_several_names_is_counted_once_and_a_link_is_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "engines"
    (root / "gen-000001" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").write_bytes(bytes(10_000))
    (root / "gen-000001" / "a").write_bytes(bytes(300))
    (root / "gen-000001" / "deep" / "b").write_bytes(bytes(50))
    os.link(root / "gen-000001" / "a", root / "same")
    (root / "l").symlink_to("x" * 7)
    (root / "folder").symlink_to(tmp_path)
    assert stored_bytes(root) == 350 + 7 + len(str(tmp_path))


def test_a_store_that_is_not_there_takes_nothing(tmp_path: Path) -> None:
    assert stored_bytes(tmp_path / "engines") == 0


def test_a_linked_generation_takes_only_its_manifest(tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    with stage_generation(store) as staged:
        write(staged.directory, bytes(5000))
        first = staged.commit()
    stored = stored_bytes(store.root)
    with stage_generation(store) as staged:
        staged.link(first.entries["vpr"])
        second = staged.commit()
    assert stored_bytes(store.root) - stored == (second.path / "manifest.json").stat().st_size


def test_what_disappears_while_it_is_counted_takes_no_room(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    (tmp_path / "a").write_bytes(bytes(5))
    (tmp_path / "b").write_bytes(bytes(7))

    class Busy(Disk):
        def list_folder(self, path: Path) -> list[os.DirEntry[str]]:
            entries = super().list_folder(path)
            if path == tmp_path:
                (tmp_path / "a").unlink()
                (tmp_path / "gone").rmdir()
            return entries

    assert stored_bytes(tmp_path, Busy()) == 7


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_zero(tmp_path: Path) -> None:
    class Broken(Disk):
        def list_folder(self, path: Path) -> list[os.DirEntry[str]]:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(EngineStoreError, match=r"cannot be counted: Input/output error"):
        stored_bytes(tmp_path, Broken())


def test_the_budget_is_held_to_the_byte_before_anything_is_written(tmp_path: Path) -> None:
    entry = write(tmp_path / "first", bytes(1000))
    needed = sum(path.stat().st_size for path in artifact_files(entry))
    folder = tmp_path / "second"
    with pytest.raises(EngineStoreError) as refused:
        write(folder, bytes(1000), room=needed - 1)
    text = str(refused.value)
    assert f"{needed} bytes are needed, {needed - 1} bytes are left of it, 1 bytes are missing" in text
    assert "storage_budget_mb" in text
    assert "c7 engines prune" in text
    assert not folder.exists()
    write(folder, bytes(1000), room=needed)


def test_known_answers_are_held_to_the_budget_as_well(tmp_path: Path) -> None:
    entry = write(tmp_path, b"engine")
    before = names(tmp_path)
    memory = MemoryUse(load_bytes=1, run_bytes=1)
    with pytest.raises(EngineStoreError, match="storage budget is too small"):
        sign_off(entry, self_test=bytes(9000), power=None, memory=memory, accuracy=None, room_bytes=9000)
    assert names(tmp_path) == before


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(EngineStoreError, match=r"No space left on device: (\d+) bytes are needed, 5000 bytes are free"):
        write(tmp_path / "engines", bytes(10_000), disk=Small(5000))
    assert not (tmp_path / "engines").exists()


def test_a_disk_that_does_not_say_what_is_free_is_written(tmp_path: Path) -> None:
    assert write(tmp_path, bytes(10_000), disk=Small(None)).engine_size_bytes == 10_000


@pytest.mark.parametrize(
    ("code", "free", "expected"),
    [
        (
            errno.ENOSPC,
            99,
            r"No space left on device: \d{4} bytes are needed, 99 bytes are free there, \d{4} bytes are m",
        ),
        (errno.ENOSPC, 10**9, r"\d{4} bytes are needed, 1000000000 bytes are free there, but not all of them for this"),
        (errno.EDQUOT, None, r"quota exceeded: \d{4} bytes are needed, how many are free cannot be told"),
        (errno.EFBIG, 10**9, r"File too large: 5000 bytes are needed in one file, more than this file system has"),
    ],
)
def test_a_disk_that_fills_up_meanwhile_is_an_error_that_says_what_was_missing(
    tmp_path: Path, code: int, free: int | None, expected: str
) -> None:
    class Filling(Disk):
        def write(self, descriptor: int, data: memoryview) -> int:
            self.free_bytes = lambda path: free  # type: ignore[method-assign]
            raise OSError(code, os.strerror(code))

    with pytest.raises(EngineStoreError, match=expected):
        write(tmp_path, bytes(5000), disk=Filling())
    assert names(tmp_path) == []


def test_an_engine_is_read_though_its_folder_was_named_through_a_link(
    tmp_path: Path,
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    entry = write(tmp_path / "link", b"engine")
    assert entry.path.parent == (tmp_path / "real").resolve()
    assert read_verified(entry) == b"engine"
