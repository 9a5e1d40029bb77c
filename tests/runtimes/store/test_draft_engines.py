"""What a provisioning run had finished outlasts its end, whole or not at all, until a commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from messages import EngineStoreError
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.store.engine_artifact import artifact_files, read_verified
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.staged_generation import StagedGeneration, stage_generation

WriteEngine = Callable[[Path, str, bytes], EngineCacheEntry]
Commit = Callable[[EngineStore, Mapping[str, bytes]], Generation]


class GivesUp(Exception):  # noqa: N818 - it is no error: the run ends before its commit
    pass


@pytest.fixture
def interrupted(store: EngineStore, write_small: WriteEngine) -> EngineStore:
    """A store in which a run kept a draft of vpr and ended, and had another model that it did not keep."""
    with pytest.raises(GivesUp):
        _keep_and_give_up(store, write_small, b"draft")
    return store


def _keep_and_give_up(store: EngineStore, write_small: WriteEngine, data: bytes) -> None:
    with stage_generation(store) as staged:
        write_small(staged.directory, "matcher", b"unfinished")
        staged.keep_draft(write_small(staged.directory, "vpr", data))
        raise GivesUp


def drafts(staged: StagedGeneration) -> dict[str, list[bytes]]:
    return {model: [read_verified(entry) for entry in entries] for model, entries in staged.drafts().items()}


def test_a_store_has_no_drafts_at_first(store: EngineStore) -> None:
    with stage_generation(store) as staged:
        assert staged.drafts() == {}
        staged.remove_drafts()


def test_the_next_run_finds_what_was_kept_and_that_alone(interrupted: EngineStore) -> None:
    with stage_generation(interrupted) as staged:
        assert drafts(staged) == {"vpr": [b"draft"]}
        assert list(staged.directory.iterdir()) == []


def test_a_draft_is_taken_over_without_a_copy_and_goes_with_the_commit(interrupted: EngineStore) -> None:
    with stage_generation(interrupted) as staged:
        (draft,) = staged.drafts()["vpr"]
        inode = draft.path.stat().st_ino
        staged.link(draft)
        generation = staged.commit()
        assert staged.drafts() == {}
    assert generation.entries["vpr"].path.stat().st_ino == inode
    assert sorted(path.name for path in interrupted.root.iterdir()) == [".lock", "current", "gen-000001"]


def test_drafts_outlast_any_number_of_runs_that_end_early(interrupted: EngineStore) -> None:
    for _ in range(3):
        with stage_generation(interrupted) as staged:
            assert drafts(staged) == {"vpr": [b"draft"]}


def test_a_newer_draft_of_the_same_engine_file_takes_the_place_of_the_old_one(
    interrupted: EngineStore, write_small: WriteEngine
) -> None:
    for data in (b"newer", b"newer"):
        with pytest.raises(GivesUp):
            _keep_and_give_up(interrupted, write_small, data)
    with stage_generation(interrupted) as staged:
        assert drafts(staged) == {"vpr": [b"newer"]}


@pytest.mark.parametrize("which", [0, 1, -1])
@pytest.mark.parametrize("harm", ["altered", "missing"])
def test_a_damaged_draft_is_removed_and_the_others_stay(
    interrupted: EngineStore, write_small: WriteEngine, which: int, harm: str
) -> None:
    with stage_generation(interrupted) as staged:
        staged.keep_draft(write_small(staged.directory, "matcher", b"whole"))
        (draft,) = staged.drafts()["vpr"]
    path = artifact_files(draft)[which]
    if harm == "altered":
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    else:
        path.unlink()
    with stage_generation(interrupted) as staged:
        assert drafts(staged) == {"matcher": [b"whole"]}
    assert not draft.path.parent.exists()


def test_a_draft_with_two_engines_or_none_is_no_draft(interrupted: EngineStore) -> None:
    with stage_generation(interrupted) as staged:
        (draft,) = staged.drafts()["vpr"]
        (draft.path.parent / "other.engine").touch()
        (interrupted.root / ".drafts" / "empty").mkdir()
        assert staged.drafts() == {}
    assert list((interrupted.root / ".drafts").iterdir()) == []


def test_a_half_kept_draft_of_a_killed_run_is_removed_by_the_next(interrupted: EngineStore) -> None:
    half = interrupted.root / ".drafts" / ".0123456789abcdef.dead.part"
    half.mkdir()
    (half / "x.engine").write_bytes(b"half")
    with stage_generation(interrupted) as staged:
        assert drafts(staged) == {"vpr": [b"draft"]}
    assert not half.exists()


def test_drafts_are_removed_when_they_are_not_wanted(interrupted: EngineStore) -> None:
    with stage_generation(interrupted) as staged:
        staged.remove_drafts()
        assert staged.drafts() == {}
    assert sorted(path.name for path in interrupted.root.iterdir()) == [".lock"]


def test_a_link_in_place_of_the_drafts_is_removed_and_not_followed(interrupted: EngineStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (interrupted.root / ".drafts").rename(victim)
    (interrupted.root / ".drafts").symlink_to(victim)
    with stage_generation(interrupted) as staged:
        assert staged.drafts() == {}
    assert any(victim.iterdir())


def test_a_commit_whose_drafts_cannot_be_removed_says_that_it_is_current(
    interrupted: EngineStore, write_small: WriteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    with pytest.raises(EngineStoreError, match=r"\.drafts: Input/output error; what was committed is current"):
        _commit_and_fail(interrupted, write_small, monkeypatch, refuse)
    monkeypatch.undo()
    generation = interrupted.current()
    assert generation is not None
    assert read_verified(generation.entries["vpr"]) == b"committed"


def _commit_and_fail(
    store: EngineStore, write_small: WriteEngine, monkeypatch: pytest.MonkeyPatch, refuse: Callable[[Path], None]
) -> None:
    with stage_generation(store) as staged:
        write_small(staged.directory, "vpr", b"committed")
        monkeypatch.setattr(store.disk, "remove_tree", refuse)
        staged.commit()
