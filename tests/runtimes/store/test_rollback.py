"""Going back: to what is whole, in one step, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from messages import EngineStoreError
from runtimes.store.disk import Disk
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.rollback import roll_back
from runtimes.store.store_lock import store_lock
from runtimes.store.verification import HashedSoFar

Commit = Callable[[EngineStore, Mapping[str, bytes]], Generation]


@pytest.fixture
def generations(store: EngineStore, commit: Commit) -> list[Generation]:
    return [commit(store, {"vpr": content}) for content in (b"one", b"two", b"three")]


def current_number(store: EngineStore) -> int:
    current = store.current()
    assert current is not None
    assert not current.damaged
    return current.number


def damage(generation: Generation) -> None:
    generation.entries["vpr"].path.write_bytes(b"?" * generation.entries["vpr"].engine_size_bytes)


def test_it_goes_to_the_next_lower_generation(store: EngineStore, generations: list[Generation]) -> None:
    for former, number in ((3, 2), (2, 1)):
        done = roll_back(store)
        assert (done.former, done.generation, done.skipped) == (former, number, {})
        assert done.manifest_sha256 == generations[number - 1].manifest_sha256
        assert store.current() == generations[number - 1]
    before = (store.root / "current").read_bytes()
    with pytest.raises(EngineStoreError, match=r"expected a whole generation below 1, found none; above it.*2, 3"):
        roll_back(store)
    assert (store.root / "current").read_bytes() == before


def test_it_goes_to_any_generation_that_is_named_forwards_too(
    store: EngineStore, generations: list[Generation]
) -> None:
    assert roll_back(store, 1).former == 3
    assert current_number(store) == 1
    assert roll_back(store, 3).former == 1
    assert current_number(store) == 3


def test_a_damaged_generation_is_passed_over_and_named(store: EngineStore, generations: list[Generation]) -> None:
    damage(generations[1])
    done = roll_back(store)
    assert done.generation == 1
    assert done.skipped.keys() == {2}
    assert "gen-000002" in done.skipped[2]
    assert "content altered" in done.skipped[2]


def test_a_damaged_generation_that_is_asked_for_by_name_is_refused(
    store: EngineStore, generations: list[Generation]
) -> None:
    before = (store.root / "current").read_bytes()
    damage(generations[0])
    with pytest.raises(EngineStoreError, match=r"gen-000001.*content altered"):
        roll_back(store, 1)
    (generations[1].path / "manifest.json").write_bytes(b"{}")
    with pytest.raises(EngineStoreError, match=r"gen-000002.*not a manifest"):
        roll_back(store, 2)
    with pytest.raises(EngineStoreError, match=r"expected one of its generations \(1, 2, 3\), got 9"):
        roll_back(store, 9)
    assert (store.root / "current").read_bytes() == before


def test_the_current_generation_stays_current_and_nothing_is_written(
    store: EngineStore, generations: list[Generation]
) -> None:
    before = (store.root / "current").stat().st_ino
    assert roll_back(store, 3).former == 3
    assert (store.root / "current").stat().st_ino == before


def test_a_manifest_that_current_does_not_fit_is_not_made_to_fit(
    store: EngineStore, generations: list[Generation]
) -> None:
    path = generations[2].path / "manifest.json"
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes())))
    with pytest.raises(EngineStoreError, match="content altered"):
        roll_back(store, 3)


@pytest.mark.parametrize("content", [None, b"", b"nonsense\n", b"0" * 64 + b"  gen-000009/manifest.json\n"])
def test_a_current_that_leads_nowhere_is_put_right(
    store: EngineStore, generations: list[Generation], content: bytes | None
) -> None:
    path = store.root / "current"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    if content is not None and b"gen-000009" in content:
        assert roll_back(store).generation == 3
        return
    with pytest.raises(EngineStoreError, match=r"current.*--generation N"):
        roll_back(store)
    assert roll_back(store, 2).former is None
    assert current_number(store) == 2


@pytest.mark.parametrize("folder", [".", "missing"])
def test_a_folder_that_is_no_store_is_refused_and_gets_no_lock_file(tmp_path: Path, folder: str) -> None:
    with pytest.raises(EngineStoreError, match="expected a store with generations"):
        roll_back(EngineStore(tmp_path / folder))
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_another_changes_is_waited_for_and_then_refused(
    store: EngineStore, generations: list[Generation]
) -> None:
    waits: list[None] = []
    with store_lock(store), pytest.raises(EngineStoreError, match="has held the store"):
        roll_back(store, timeout_s=0.01, waiting=lambda: waits.append(None))
    assert waits
    assert current_number(store) == 3


def test_progress_names_the_generation_that_is_hashed(store: EngineStore, generations: list[Generation]) -> None:
    heard: list[tuple[int, HashedSoFar]] = []
    roll_back(store, hashing=lambda number, so_far: heard.append((number, so_far)))
    assert {number for number, _ in heard} == {2}
    assert heard[-1][1].files_done == 3


class FailingDisk(Disk):
    """Refuses its `fail_at`-th operation and, as a full or failing disk may, every later one of that kind."""

    def __init__(self, fail_at: int) -> None:
        self.left = fail_at

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(5, "Input/output error")

    def create(self, path: Path) -> int:
        self._count()
        return super().create(path)

    def write(self, descriptor: int, data: memoryview) -> int:
        self._count()
        return super().write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        self._count()
        super().fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        self._count()
        super().replace(source, target)


def error_of(store: EngineStore) -> str | None:
    try:
        roll_back(store, 2)
    except EngineStoreError as error:
        return str(error)
    return None


def test_a_disk_that_fails_at_any_step_leaves_one_whole_generation_current(
    store: EngineStore, generations: list[Generation]
) -> None:
    refused = 0
    for fail_at in range(1, 20):
        disk = FailingDisk(fail_at)
        error = error_of(EngineStore(store.root, disk))
        assert error is None or "cannot be" in error or "does not confirm" in error
        assert (error is not None and "generation 2 is current" in error) == (
            error is not None and current_number(store) == 2
        )
        refused += error is not None
        assert current_number(store) in (2, 3)
        assert not list(store.root.glob(".current*"))
        if disk.left > 0:
            break
        roll_back(store, 3)
    assert refused >= 6, "the root's fsync, to create, to write, to make durable, to replace, the root's fsync again"
    assert current_number(store) == 2
