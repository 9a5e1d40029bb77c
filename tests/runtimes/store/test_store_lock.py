"""Who gets the store's lock goes by what is on disk, not by what a killed one had only begun to write."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from messages import EngineStoreError
from runtimes.store.disk import Disk
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.rollback import roll_back
from runtimes.store.staged_generation import stage_generation
from runtimes.store.store_lock import store_lock

Commit = Callable[[EngineStore, Mapping[str, bytes]], Generation]


class WatchedDisk(Disk):
    """Notes each change and each fsync, and refuses fsyncs where it is told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.seen: list[tuple[str, Path]] = []
        self._fails = fails

    def fsync(self, descriptor: int) -> None:
        if self._fails:
            raise OSError(errno.EIO, "Input/output error")
        super().fsync(descriptor)
        self.seen.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink()))

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        self.seen.append(("replace", target))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.seen.append(("unlink", path))

    def remove_folder(self, path: Path) -> None:
        super().remove_folder(path)
        self.seen.append(("remove_folder", path))

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self.seen.append(("make_folder", path))


@pytest.fixture
def begun(store: EngineStore, commit: Commit) -> EngineStore:
    """A store in which a prune and a commit were killed right before they were durable."""
    commit(store, {"vpr": b"one"})
    commit(store, {"vpr": b"two"})
    commit(store, {"vpr": b"three"})
    store.path_of(1).rename(store.root / ".pruned-gen-000001")
    return store


def stage(store: EngineStore) -> None:
    with stage_generation(store):
        pass


@pytest.mark.parametrize("change", [stage, roll_back], ids=["a provisioner", "a rollback"])
def test_what_a_killed_one_had_named_is_durable_before_anything_is_changed(
    begun: EngineStore, change: Callable[[EngineStore], object]
) -> None:
    disk = WatchedDisk()
    change(EngineStore(begun.root, disk))
    assert disk.seen[0] == ("fsync", begun.root)
    assert len(disk.seen) > 1


def test_an_up_to_date_store_is_not_believed_where_the_disk_does_not_confirm_it(begun: EngineStore) -> None:
    hidden = begun.root / ".pruned-gen-000001"
    with pytest.raises(EngineStoreError, match="Input/output error"):
        stage(EngineStore(begun.root, WatchedDisk(fails=True)))
    assert (hidden / "manifest.json").exists(), "a power cut could bring back its name, with half of it removed"


def test_a_lock_whose_holder_failed_is_free(begun: EngineStore) -> None:
    with pytest.raises(EngineStoreError), store_lock(EngineStore(begun.root, WatchedDisk(fails=True)), timeout_s=0):
        pass
    with store_lock(begun, timeout_s=0):
        assert os.path.lexists(begun.root / ".lock")
