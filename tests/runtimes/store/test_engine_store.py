"""The store: one commit, generations that are never written again, and damage that is named and contained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messages import EngineBuildError, EngineDeserializeError, EngineStoreError, TensorSpec
from runtimes.fake_runtime import FAKE_HOST
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry
from runtimes.source_model import SourceModel
from runtimes.store.engine_artifact import engine_files, metadata_path, read_engine
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.engine_writer import BuiltEngine, write_engine
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.staged_generation import stage_generation

LABEL = "onnx_trt_ep[cpu]"


def write(directory: Path, model: str, data: bytes) -> EngineCacheEntry:
    return write_engine(
        directory,
        model,
        SourceModel(Path(f"{model}.onnx"), b"source", sha256_of(b"source")),
        BuiltEngine(data=data, inputs={"x": TensorSpec((1,), "float32")}, outputs={}, build_tool="test"),
        BuildConfig(precision="fp32"),
        LABEL,
        FAKE_HOST,
        1,
    )


def commit(store: EngineStore, engines: dict[str, bytes]) -> Generation:
    with stage_generation(store) as staged:
        for model, data in engines.items():
            write(staged.directory, model, data)
        return staged.commit()


def loaded(generation: Generation | None) -> dict[str, bytes]:
    assert generation is not None
    return {
        model: read_engine(entry, runtime_label=LABEL, host=FAKE_HOST) for model, entry in generation.entries.items()
    }


def hidden(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob(".*") if path.name != ".lock")


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")


def test_a_store_that_was_never_provisioned_has_no_generation(store: EngineStore) -> None:
    assert store.current() is None
    assert store.numbers() == []
    assert not store.root.exists()


def test_what_is_committed_is_current(store: EngineStore) -> None:
    generation = commit(store, {"vpr": b"one", "matcher": b"two"})
    assert generation.number == 1
    assert generation.path == store.root / "gen-000001"
    assert store.current() == generation
    assert loaded(store.current()) == {"vpr": b"one", "matcher": b"two"}
    assert hidden(store.root) == []


def test_current_is_one_line_that_names_the_manifest_and_its_hash(store: EngineStore) -> None:
    generation = commit(store, {"vpr": b"one"})
    manifest = (generation.path / "manifest.json").read_bytes()
    line = (store.root / "current").read_text()
    assert line == f"{sha256_of(manifest)}  gen-000001/manifest.json\n"
    assert generation.manifest_sha256 == sha256_of(manifest)


def test_numbers_only_grow_and_the_former_generation_stays(store: EngineStore) -> None:
    commit(store, {"vpr": b"one"})
    commit(store, {"vpr": b"two"})
    assert store.numbers() == [1, 2]
    assert loaded(store.current()) == {"vpr": b"two"}
    assert loaded(store.generation(1)) == {"vpr": b"one"}


def test_a_number_is_not_used_twice_though_current_points_back(store: EngineStore) -> None:
    commit(store, {"vpr": b"one"})
    first = (store.root / "current").read_bytes()
    commit(store, {"vpr": b"two"})
    (store.root / "current").write_bytes(first)
    assert loaded(store.current()) == {"vpr": b"one"}
    assert commit(store, {"vpr": b"three"}).number == 3


def test_an_unchanged_engine_is_linked_and_takes_no_room(store: EngineStore) -> None:
    former = commit(store, {"vpr": b"one", "matcher": b"two"})
    with stage_generation(store) as staged:
        assert staged.former == former
        staged.link(former.entries["vpr"])
        write(staged.directory, "matcher", b"three")
        generation = staged.commit()
    assert loaded(generation) == {"vpr": b"one", "matcher": b"three"}
    for old, new in zip(
        engine_files(former.entries["vpr"].path), engine_files(generation.entries["vpr"].path), strict=True
    ):
        assert old.samefile(new)


def test_what_is_not_committed_is_gone(store: EngineStore) -> None:
    former = commit(store, {"vpr": b"one"})
    with stage_generation(store) as staged:
        write(staged.directory, "vpr", b"two")
    with pytest.raises(EngineBuildError, match="gave up"):
        _fail_while_staging(store)
    assert store.current() == former
    assert store.numbers() == [1]
    assert hidden(store.root) == []


def _fail_while_staging(store: EngineStore) -> None:
    with stage_generation(store) as staged:
        write(staged.directory, "vpr", b"three")
        raise EngineBuildError("the compiler gave up")


def test_an_engine_that_was_damaged_while_staged_is_not_committed(store: EngineStore) -> None:
    former = commit(store, {"vpr": b"one"})
    with stage_generation(store) as staged:
        write(staged.directory, "vpr", b"two").path.write_bytes(b"owt")
        with pytest.raises(EngineDeserializeError, match="content altered"):
            staged.commit()
    assert store.current() == former


def test_two_engines_of_one_model_and_stray_files_are_not_committed(store: EngineStore) -> None:
    with stage_generation(store) as staged:
        with pytest.raises(EngineStoreError, match="expected whole engines alone, found none"):
            staged.commit()
        entry = write(staged.directory, "vpr", b"one")
        (staged.directory / "notes.txt").touch()
        with pytest.raises(EngineStoreError, match=r"expected whole engines alone, found \['notes.txt'\]"):
            staged.commit()
        (staged.directory / "notes.txt").unlink()
        other = msgspec.structs.replace(FAKE_HOST, sm=87)
        write_engine(
            staged.directory,
            "vpr",
            SourceModel(Path("vpr.onnx"), b"source", entry.source_sha256),
            BuiltEngine(data=b"two", inputs={}, outputs={}, build_tool="test"),
            BuildConfig(precision="fp32"),
            LABEL,
            other,
            1,
        )
        with pytest.raises(EngineStoreError, match="expected one engine of vpr"):
            staged.commit()
    assert store.current() is None


def test_a_second_provisioner_waits_and_gives_up_after_its_time(store: EngineStore) -> None:
    waits: list[None] = []
    with (
        stage_generation(store),
        pytest.raises(EngineStoreError, match="another provisioner"),
        stage_generation(store, timeout_s=0.05, waiting=lambda: waits.append(None)),
    ):
        pass
    assert waits
    with stage_generation(store):
        pass


def test_leftovers_of_a_killed_provisioner_are_removed_by_the_next(store: EngineStore) -> None:
    commit(store, {"vpr": b"one"})
    (store.root / ".staging-dead" / "generation").mkdir(parents=True)
    (store.root / ".staging-dead" / "generation" / "half.engine").write_bytes(b"ha")
    (store.root / ".current.dead.part").write_bytes(b"0")
    with stage_generation(store):
        pass
    assert hidden(store.root) == []
    assert loaded(store.current()) == {"vpr": b"one"}


def test_a_store_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = EngineStore(tmp_path / "file" / "engines")
    with (
        pytest.raises(EngineStoreError, match=r"the engine store cannot be written.*file/engines"),
        stage_generation(store),
    ):
        pass


def test_a_failing_replacement_of_current_leaves_the_former_generation(
    store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = commit(store, {"vpr": b"one"})
    real = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.name == "current":
            raise OSError(28, "No space left on device", str(target))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(EngineStoreError, match="No space left on device"):
        commit(store, {"vpr": b"two"})
    monkeypatch.undo()
    assert store.current() == former
    assert store.numbers() == [1]
    assert hidden(store.root) == []


def test_what_stands_where_current_belongs_is_named_and_not_the_file_that_was_to_replace_it(store: EngineStore) -> None:
    commit(store, {"vpr": b"one"})
    current = store.root / "current"
    current.unlink()
    current.mkdir()
    with pytest.raises(EngineStoreError, match=f"cannot be written: {current}: Is a directory"):
        commit(store, {"vpr": b"two"})
    assert hidden(store.root) == []


# --- damage -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineStore, dict[Path, bytes]]:
    """Two generations, whose files a property test alters and restores."""
    store = EngineStore(tmp_path_factory.mktemp("store"))
    commit(store, {"vpr": b"former", "matcher": b"former matcher"})
    commit(store, {"vpr": b"engine of vpr", "matcher": b"engine of matcher"})
    files = [store.root / "current", *(store.root / "gen-000002").iterdir()]
    return store, {path: path.read_bytes() for path in files}


def load_all(store: EngineStore) -> dict[str, bytes]:
    """As a takeoff does: every model that the plan names, or a refusal."""
    generation = store.current()
    assert generation is not None
    if generation.damaged:
        raise EngineDeserializeError("; ".join(generation.damaged.values()))
    return loaded(generation)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_anywhere_in_the_store_is_refused_by_name(
    whole: tuple[EngineStore, dict[Path, bytes]], data: st.DataObject
) -> None:
    store, files = whole
    path = data.draw(st.sampled_from(sorted(files)))
    bit = data.draw(st.integers(0, len(files[path]) * 8 - 1))
    altered = bytearray(files[path])
    altered[bit // 8] ^= 1 << bit % 8
    path.write_bytes(altered)
    try:
        with pytest.raises((EngineStoreError, EngineDeserializeError)) as refused:
            load_all(store)
        assert path.name in str(refused.value) or "gen-" in str(refused.value)
    finally:
        path.write_bytes(files[path])
    assert load_all(store) == {"vpr": b"engine of vpr", "matcher": b"engine of matcher"}


@pytest.mark.parametrize("name", ["current", "manifest.json"])
def test_every_truncation_of_current_and_manifest_is_refused(
    whole: tuple[EngineStore, dict[Path, bytes]], name: str
) -> None:
    store, files = whole
    path = next(each for each in files if each.name == name)
    try:
        for kept in range(len(files[path])):
            path.write_bytes(files[path][:kept])
            with pytest.raises(EngineStoreError, match=name):
                store.current()
    finally:
        path.write_bytes(files[path])


def test_a_damaged_engine_is_named_and_the_others_keep_their_entries(store: EngineStore) -> None:
    generation = commit(store, {"vpr": b"one", "matcher": b"two"})
    metadata_path(generation.entries["vpr"].path).unlink()
    found = store.current()
    assert found is not None
    assert list(found.entries) == ["matcher"]
    assert "vpr__sm0_jp0_trt0_fp32.engine.json" in found.damaged["vpr"]


def test_an_engine_of_another_size_is_noticed_before_it_is_read(store: EngineStore) -> None:
    generation = commit(store, {"vpr": b"one"})
    generation.entries["vpr"].path.write_bytes(b"one and more")
    found = store.current()
    assert found is not None
    assert "expected 3 bytes, found 12" in found.damaged["vpr"]


def test_a_whole_engine_of_a_former_generation_put_in_place_is_refused(store: EngineStore) -> None:
    former = commit(store, {"vpr": b"one"})
    generation = commit(store, {"vpr": b"two"})
    for old, new in zip(
        engine_files(former.entries["vpr"].path), engine_files(generation.entries["vpr"].path), strict=True
    ):
        new.write_bytes(old.read_bytes())
    found = store.current()
    assert found is not None
    assert found.entries == {}
    assert "expected sha256" in found.damaged["vpr"]


@pytest.mark.parametrize("name", ["../gen-000001/x.engine", "/etc/passwd", ".hidden", "a\nb", "", "sub/x.engine"])
def test_a_manifest_that_names_files_elsewhere_is_refused(store: EngineStore, name: str) -> None:
    generation = commit(store, {"vpr": b"one"})
    path = generation.path / "manifest.json"
    document = msgspec.json.decode(path.read_bytes())
    document["engines"]["vpr"] = name
    data = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    path.write_bytes(data)
    (store.root / "current").write_text(f"{sha256_of(data)}  gen-000001/manifest.json\n")
    with pytest.raises(EngineStoreError, match=r"manifest\.json: not a manifest"):
        store.current()


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(number=2),
        lambda document: document["files"].pop(),
        lambda document: document["files"].append(document["files"][0]),
        lambda document: document["engines"].update(other="other.engine"),
        lambda document: document.update(format=2),
        lambda document: document["files"][0].update(size_bytes=-1),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    store: EngineStore, change: Callable[[dict[str, object]], object]
) -> None:
    generation = commit(store, {"vpr": b"one"})
    path = generation.path / "manifest.json"
    document = msgspec.json.decode(path.read_bytes())
    change(document)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    with pytest.raises(EngineStoreError, match=r"manifest\.json: (?!not a manifest as)"):
        store.generation(1)


def test_a_link_in_place_of_current_or_manifest_is_refused(store: EngineStore) -> None:
    generation = commit(store, {"vpr": b"one"})
    for path in (generation.path / "manifest.json", store.root / "current"):
        moved = path.rename(path.with_name("moved"))
        path.symlink_to(moved)
        with pytest.raises(EngineStoreError, match="found a symbolic link"):
            store.current()


def test_a_generation_that_is_not_there_is_refused(store: EngineStore) -> None:
    commit(store, {"vpr": b"one"})
    with pytest.raises(EngineStoreError, match="gen-000007"):
        store.generation(7)


# --- kills ------------------------------------------------------------------------------------------------------


def commit_until_killed(store: EngineStore, at_event: int) -> None:
    """Commit a next generation, and die by SIGKILL before the `at_event`-th operation on the file system."""
    seen = 0

    def count(event: str, _: tuple[object, ...]) -> None:
        nonlocal seen
        if event == "open" or event.startswith(("os.", "fcntl.", "shutil.", "tempfile.")):
            seen += 1
            if seen == at_event + 1:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    with stage_generation(store) as staged:
        assert staged.former is not None
        staged.link(staged.former.entries["vpr"])
        write(staged.directory, "matcher", b"the next matcher")
        staged.commit()


def kill_at_every_step(root: Path) -> None:
    """For each operation of a commit: kill a process right before it, then look at what the store holds."""
    store = EngineStore(root)
    commit(store, {"vpr": b"vpr", "matcher": b"the former matcher"})
    outcomes = {b"the former matcher": 0, b"the next matcher": 0}
    for at_event in range(10_000):
        child = os.fork()
        if child == 0:
            commit_until_killed(store, at_event)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        engines = load_all(store)
        assert engines["vpr"] == b"vpr"
        outcomes[engines["matcher"]] += 1
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        commit(store, {"vpr": b"vpr", "matcher": b"the former matcher"})
        assert hidden(root) == [], hidden(root)
    print(outcomes[b"the former matcher"], outcomes[b"the next matcher"])


@pytest.mark.chaos  # test_chaos_kills.py has a small version of it
def test_a_kill_before_any_operation_leaves_the_former_or_the_next_generation(tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, __file__, str(tmp_path / "engines")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    former, following = map(int, done.stdout.split())
    assert former > 50
    assert following > 1


if __name__ == "__main__":
    kill_at_every_step(Path(sys.argv[1]))
