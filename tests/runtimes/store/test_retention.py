"""Which generations a prune leaves, and that the others go without a trace in those that stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import EngineStoreError
from runtimes.store.disk import Disk
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.retention import decide_retention, hide_generations, remove_hidden
from runtimes.store.staged_generation import stage_generation
from runtimes.store.verification import verify_generation

Commit = Callable[[EngineStore, Mapping[str, bytes]], Generation]
NUMBERS = st.sets(st.integers(1, 12), max_size=8)


def test_the_current_the_flown_and_the_newest_stay_each_with_its_reason() -> None:
    decided = decide_retention(
        range(1, 10), whole=range(1, 9), current=3, in_flights={2: "survey-000004", 40: "survey-000001"}, keep=2
    )
    assert decided.kept == {
        2: "flown by survey-000004",
        3: "current",
        7: "one of the 2 newest",
        8: "one of the 2 newest",
        9: "the highest number, from which the next one is counted",
    }
    assert decided.pruned == (1, 4, 5, 6)


@given(numbers=NUMBERS, damaged=NUMBERS, current=st.integers(1, 12), flown=NUMBERS, keep=st.integers(0, 9))
def test_exactly_what_nobody_needs_is_removed(
    numbers: set[int], damaged: set[int], current: int, flown: set[int], keep: int
) -> None:
    decided = decide_retention(
        numbers, whole=numbers - damaged, current=current, in_flights=dict.fromkeys(flown, "a flight"), keep=keep
    )
    newest = sorted(numbers - damaged, reverse=True)[:keep]
    needed = numbers & ({current} | flown | set(newest) | ({max(numbers)} if numbers else set()))
    assert set(decided.kept) == needed
    assert decided.pruned == tuple(sorted(numbers - needed))


def shared(store: EngineStore, commit: Commit) -> list[Generation]:
    """Two generations that have the same file of `vpr`."""
    former = commit(store, {"vpr": b"shared", "matcher": b"former"})
    with stage_generation(store) as staged:
        staged.link(former.entries["vpr"])
        return [former, staged.commit()]


def test_a_file_that_another_generation_has_too_stays_there(store: EngineStore, commit: Commit) -> None:
    former, following = shared(store, commit)
    assert former.entries["vpr"].path.samefile(following.entries["vpr"].path)
    hide_generations(store, [1])
    assert store.numbers() == [2]
    assert verify_generation(store.generation(2)) == ()
    remove_hidden(store)
    assert sorted(path.name for path in store.root.iterdir()) == [".lock", "current", "gen-000002"]
    assert verify_generation(store.generation(2)) == ()
    assert following.entries["vpr"].path.stat().st_nlink == 1


def test_what_is_half_removed_is_no_generation_and_the_next_provisioner_removes_the_rest(
    store: EngineStore, commit: Commit
) -> None:
    commit(store, {"vpr": b"one"})
    commit(store, {"vpr": b"two"})
    hide_generations(store, [1])
    [hidden] = store.root.glob(".pruned-*")
    next(hidden.glob("*.engine")).unlink()
    assert store.numbers() == [2]
    with pytest.raises(EngineStoreError, match="gen-000001"):
        store.generation(1)
    assert commit(store, {"vpr": b"three"}).number == 3
    assert not list(store.root.glob(".pruned-*"))


def test_a_link_in_place_of_a_generation_goes_and_what_it_leads_to_stays(
    store: EngineStore, commit: Commit, tmp_path: Path
) -> None:
    commit(store, {"vpr": b"one"})
    outside = store.path_of(1).rename(tmp_path / "outside")
    store.path_of(1).symlink_to(outside)
    store.path_of(2).write_text("a file")
    hide_generations(store, [1, 2])
    remove_hidden(store)
    assert store.numbers() == []
    assert list(outside.glob("*.engine"))


class RecordingDisk(Disk):
    def __init__(self) -> None:
        self.did: list[str] = []

    def replace(self, source: Path, target: Path) -> None:
        self.did.append("rename")
        super().replace(source, target)

    def fsync_folder(self, path: Path) -> None:
        self.did.append("fsync")
        super().fsync_folder(path)

    def unlink(self, path: Path) -> None:
        self.did.append("unlink")
        super().unlink(path)


def test_all_names_are_gone_durably_before_the_first_file_is(store: EngineStore, commit: Commit) -> None:
    for number in range(3):
        commit(store, {"vpr": bytes([number])})
    disk = RecordingDisk()
    watched = EngineStore(store.root, disk)
    hide_generations(watched, [1, 2])
    remove_hidden(watched)
    assert disk.did == ["rename", "rename", "fsync", *["unlink"] * 8]


def test_a_generation_that_is_not_there_cannot_be_hidden(store: EngineStore, commit: Commit) -> None:
    commit(store, {"vpr": b"one"})
    with pytest.raises(EngineStoreError, match=r"cannot be pruned.*gen-000007"):
        hide_generations(store, [7])
