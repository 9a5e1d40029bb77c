"""Power cuts: whatever the disk kept of what was not yet fsynced, the store holds one generation, whole.

A run of three provisionings is recorded operation by operation. A power cut after any of them is then played back:
file contents that were not fsynced are there, missing, cut short or zeros; names in a folder that was not fsynced are
there or not, each on its own; renames happened or not, as a whole. Nothing else is assumed of a file system.

`make chaos` plays 10,000 cuts (C7_CHAOS_IMAGES); C7_CHAOS_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

import pytest

from messages import C7Error, TensorSpec
from runtimes.fake_runtime import FAKE_HOST
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry
from runtimes.measurements import MemoryUse
from runtimes.source_model import SourceModel
from runtimes.store.disk import Disk
from runtimes.store.engine_artifact import read_calibration, read_self_test, read_verified, verify_artifact
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.engine_writer import BuiltEngine, sign_off, write_engine
from runtimes.store.fake_disk import FakeDisk
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.staged_generation import StagedGeneration, stage_generation

IMAGES = 300
CHAOS_IMAGES = int(os.environ.get("C7_CHAOS_IMAGES", "10000"))
CHAOS_SEED = int(os.environ.get("C7_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
STORE = Path("data") / "engines"
"""Below the folder that was there before: the store and the folder above it are made by the first run."""

Engines = dict[str, tuple[bytes, "bytes | None", "bytes | None"]]
"""By model: engine, known answers, calibration cache."""


# --- what is recorded -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """`kind` of the Disk's method; of `mark`, `path` says what was promised by then."""

    kind: str
    path: Path
    target: Path = Path()
    data: bytes = b""


class RecordingDisk(Disk):
    """A real disk that also notes what was done to it, in order, with paths below `base`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.log: list[Operation] = []

    def mark(self, promise: str) -> None:
        self.log.append(Operation("mark", Path(promise)))

    def create(self, path: Path) -> int:
        self._note("create", path)
        return super().create(path)

    def write(self, descriptor: int, data: memoryview) -> int:
        written = super().write(descriptor, data[:200])
        self._note("write", _opened(descriptor), data=bytes(data[:written]))
        return written

    def fsync(self, descriptor: int) -> None:
        super().fsync(descriptor)
        self._note("fsync", _opened(descriptor))

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        self._note("replace", source, target)

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self._note("link", source, target)

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self._note("make_folder", path)

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._note("unlink", path)

    def remove_folder(self, path: Path) -> None:
        super().remove_folder(path)
        self._note("unlink", path)

    def _note(self, kind: str, path: Path, target: Path | None = None, data: bytes = b"") -> None:
        target = Path() if target is None else target.relative_to(self.base)
        self.log.append(Operation(kind, path.relative_to(self.base), target, data))


def _opened(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


# --- what a power cut leaves ------------------------------------------------------------------------------------


@dataclass(eq=False)
class File:
    content: bytes = b""
    durable_bytes: int = 0


@dataclass(eq=False)
class Folder:
    names: dict[str, Node] = field(default_factory=dict)
    """As the running system sees them."""
    kept: dict[str, Node] = field(default_factory=dict)
    """As the disk has them after the cut."""


Node = Union[File, Folder]


@dataclass(eq=False)
class Change:
    """Names that appear (a node) or go (None) in one step; durable once `folder` was fsynced afterwards."""

    folder: Folder
    edits: list[tuple[Folder, str, Node | None]]
    durable: bool = False


class PowerCut:
    """The disk after these operations, and what a cut right then may leave of it."""

    def __init__(self, log: list[Operation]) -> None:
        self.root = Folder()
        self.changes: list[Change] = []
        for operation in log:
            if operation.kind != "mark":
                self._apply(operation)

    def image(self, chance: random.Random) -> dict[Path, bytes | None]:
        """What is found afterwards, by path: the content of a file, None for a folder."""
        share = chance.choice((0.0, 1.0, *(chance.random() for _ in range(8))))
        folders = {id(self.root): self.root}
        for change in self.changes:
            for folder, _, _ in change.edits:
                folders[id(folder)] = folder
        for folder in folders.values():
            folder.kept.clear()
        for change in self.changes:
            if change.durable or chance.random() < share:
                for folder, name, node in change.edits:
                    if node is None:
                        folder.kept.pop(name, None)
                    else:
                        folder.kept[name] = node
        contents: dict[int, bytes] = {}
        return dict(self._found(self.root, Path(), chance, contents))

    def _found(
        self, folder: Folder, path: Path, chance: random.Random, contents: dict[int, bytes]
    ) -> Iterator[tuple[Path, bytes | None]]:
        for name, node in sorted(folder.kept.items()):
            if isinstance(node, Folder):
                yield path / name, None
                yield from self._found(node, path / name, chance, contents)
            else:
                if id(node) not in contents:
                    contents[id(node)] = _kept_content(node, chance)
                yield path / name, contents[id(node)]

    def _apply(self, operation: Operation) -> None:
        folder, name = self._folder(operation.path.parent), operation.path.name
        if operation.kind in ("create", "make_folder"):
            self._change(folder, [(folder, name, File() if operation.kind == "create" else Folder())])
        elif operation.kind == "write":
            node = folder.names[name]
            assert isinstance(node, File)
            node.content += operation.data
        elif operation.kind == "fsync":
            self._fsync(self._node(operation.path))
        elif operation.kind == "unlink":
            self._change(folder, [(folder, name, None)])
        else:
            target, node = self._folder(operation.target.parent), folder.names[name]
            edits: list[tuple[Folder, str, Node | None]] = [(target, operation.target.name, node)]
            if operation.kind == "replace":
                edits.insert(0, (folder, name, None))
            self._change(target, edits)

    def _fsync(self, node: Node) -> None:
        if isinstance(node, File):
            node.durable_bytes = len(node.content)
            return
        for change in self.changes:
            if change.folder is node:
                change.durable = True

    def _change(self, folder: Folder, edits: list[tuple[Folder, str, Node | None]]) -> None:
        for each, name, node in edits:
            if node is None:
                del each.names[name]
            else:
                each.names[name] = node
        self.changes.append(Change(folder, edits))

    def _node(self, path: Path) -> Node:
        node: Node = self.root
        for part in path.parts:
            assert isinstance(node, Folder)
            node = node.names[part]
        return node

    def _folder(self, path: Path) -> Folder:
        node = self._node(path)
        assert isinstance(node, Folder)
        return node


def _kept_content(file: File, chance: random.Random) -> bytes:
    durable, pending = file.content[: file.durable_bytes], file.content[file.durable_bytes :]
    cut = chance.randrange(len(pending) + 1)
    return durable + chance.choice((pending, b"", pending[:cut], bytes(len(pending)), pending[:cut] + bytes(cut)))


# --- the run that is cut short ----------------------------------------------------------------------------------

FIRST: Engines = {"vpr": (b"vpr 1" * 100, None, None), "matcher": (b"matcher 1" * 50, b"answers 1" * 9, None)}
SECOND: Engines = {**FIRST, "matcher": (b"matcher 2" * 60, b"answers 2" * 9, b"scales 2" * 7)}
THIRD: Engines = {"vpr": (b"vpr 3" * 80, b"answers 3", b"scales 3"), "matcher": SECOND["matcher"]}
GENERATIONS: tuple[Engines, ...] = ({}, FIRST, SECOND, THIRD)


class GivesUp(Exception):  # noqa: N818 - it is no error: the run ends before its commit
    """Ends a run as a failed build does."""


def write(staged: StagedGeneration, model: str, parts: tuple[bytes, bytes | None, bytes | None], disk: Disk) -> None:
    data, answers, calibration = parts
    entry = write_engine(
        staged.directory,
        model,
        SourceModel(Path(f"{model}.onnx"), b"source", sha256_of(b"source")),
        BuiltEngine(
            data=data,
            inputs={"x": TensorSpec((1,), "float32")},
            outputs={},
            build_tool="test",
            calibration_cache=calibration,
        ),
        BuildConfig(precision="fp32"),
        "onnx_trt_ep[cpu]",
        FAKE_HOST,
        1,
        disk=disk,
    )
    memory = MemoryUse(load_bytes=1, run_bytes=1)
    entry = sign_off(entry, self_test=answers, power=None, memory=memory, accuracy=None, disk=disk)
    staged.keep_draft(entry)


def record(base: Path) -> list[Operation]:
    """A first generation, a second one that links, and a third one from the drafts of a run that gave up."""
    disk = RecordingDisk(base)
    store = EngineStore(base / STORE, disk)
    with stage_generation(store) as staged:
        for model, parts in FIRST.items():
            write(staged, model, parts, disk)
        first = staged.commit()
        disk.mark("committed 1")
    with stage_generation(store) as staged:
        staged.link(first.entries["vpr"])
        write(staged, "matcher", SECOND["matcher"], disk)
        second = staged.commit()
        disk.mark("committed 2")
    with pytest.raises(GivesUp):
        give_up_after_a_draft(store, disk)
    with stage_generation(store) as staged:
        (draft,) = staged.drafts()["vpr"]
        staged.link(draft)
        staged.link(second.entries["matcher"])
        disk.mark("committing 3")
        staged.commit()
        disk.mark("committed 3")
    return disk.log


def give_up_after_a_draft(store: EngineStore, disk: RecordingDisk) -> None:
    with stage_generation(store) as staged:
        write(staged, "vpr", THIRD["vpr"], disk)
        disk.mark("draft of vpr")
        raise GivesUp


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[Operation]:
    return record(tmp_path_factory.mktemp("recorded"))


# --- what must hold after it ------------------------------------------------------------------------------------


def parts_of(entry: EngineCacheEntry) -> tuple[bytes, bytes | None, bytes | None]:
    verify_artifact(entry)
    return read_verified(entry), read_self_test(entry), read_calibration(entry)


def engines_of(generation: Generation | None) -> Engines:
    if generation is None:
        return {}
    assert generation.damaged == {}, generation.damaged
    return {model: parts_of(entry) for model, entry in generation.entries.items()}


def judge(store: EngineStore, promises: list[str]) -> None:
    """The store holds the last committed generation or the one after it, and the drafts that were promised."""
    committed = max([0, *(int(each.split()[1]) for each in promises if each.startswith("committed"))])
    generation = store.current()
    number = 0 if generation is None else generation.number
    assert committed <= number <= committed + 1, f"{number} is current, {committed} was committed"
    assert engines_of(generation) == GENERATIONS[number], f"generation {number} is not what it was"
    with stage_generation(store) as staged:
        drafts = {model: [parts_of(entry) for entry in entries] for model, entries in staged.drafts().items()}
        if promises and promises[-1] == "draft of vpr":
            assert THIRD["vpr"] in drafts.get("vpr", []), "the finished engine is gone"
        for model, parts in SECOND.items():
            entry = None if staged.former is None else staged.former.entries.get(model)
            if entry is None or parts_of(entry) != parts:
                write(staged, model, parts, store.disk)
            else:
                staged.link(entry)
        following = staged.commit()
    assert following.number > number
    assert engines_of(store.current()) == SECOND
    assert [path.name for path in store.root.iterdir() if path.name.startswith(".")] == [".lock"]


def play(
    log: list[Operation], folder: Path, *, seed: int, images: int, after: list[int] | None = None
) -> dict[str, int]:
    """Play that many power cuts, each after a random operation, or after a random one of those numbers.

    Raises AssertionError or C7Error at the first bad one.
    """
    chance = random.Random(seed)
    seen: set[tuple[int, int]] = set()
    found = {"images": 0, "different": 0}
    for number in range(images):
        length = chance.choice(after or range(len(log) + 1))
        image = PowerCut(log[:length]).image(chance)
        promises = [operation.path.name for operation in log[:length] if operation.kind == "mark"]
        found["images"] += 1
        key = (hash(tuple(sorted(image.items()))), len(promises))
        if key in seen:
            continue
        seen.add(key)
        found["different"] += 1
        base = folder / str(number)
        base.mkdir()
        for path, content in image.items():
            if content is None:
                (base / path).mkdir()
            else:
                (base / path).write_bytes(content)
        try:
            judge(EngineStore(base / STORE, FakeDisk(lambda *_: None, fsyncs=False)), promises)
        except (AssertionError, C7Error) as error:
            error.args = (f"cut {number} of seed {seed} after operation {length} of {len(log)}: {error}",)
            raise
        shutil.rmtree(base)
    return found


def test_after_a_power_cut_the_store_holds_one_generation_whole(log: list[Operation], tmp_path: Path) -> None:
    found = play(log, tmp_path, seed=3, images=IMAGES)
    assert found["different"] > IMAGES // 3


@pytest.mark.chaos
def test_after_ten_thousand_power_cuts_the_store_holds_one_generation_whole(
    log: list[Operation], tmp_path: Path
) -> None:
    print(f"\nC7_CHAOS_SEED={CHAOS_SEED}")
    found = play(log, tmp_path, seed=CHAOS_SEED, images=CHAOS_IMAGES)
    print(f"{len(log)} operations, {found['images']} power cuts, {found['different']} different images: none torn")


# --- that the check can fail ------------------------------------------------------------------------------------


def is_fsync_of(*patterns: str) -> Callable[[Operation], bool]:
    return lambda operation: operation.kind == "fsync" and any(operation.path.match(each) for each in patterns)


FORGOTTEN = {
    "every fsync": is_fsync_of("*"),
    "the manifest's": is_fsync_of(".manifest.json.*.part"),
    "the engines'": is_fsync_of(".*.engine.*.part", "*.engine"),
    "the metadata's": is_fsync_of(".*.json.*.part", "*.json"),
    "the generation folder's": is_fsync_of("generation"),
    "the root's": is_fsync_of("engines"),
    "the folder's above the root": is_fsync_of("data"),
    "that of current": is_fsync_of(".current.*.part"),
    "the drafts'": is_fsync_of(".drafts"),
}


@pytest.mark.parametrize("which", FORGOTTEN)
def test_an_fsync_that_is_forgotten_is_found_out(log: list[Operation], tmp_path: Path, which: str) -> None:
    careless = [operation for operation in log if not FORGOTTEN[which](operation)]
    assert len(careless) < len(log)
    with pytest.raises((AssertionError, C7Error)):
        play(careless, tmp_path, seed=3, images=3000)


def root_fsyncs_around_current(log: list[Operation]) -> list[tuple[int, int, int]]:
    """For each time that `current` is replaced: the root's fsync before it, itself, and the root's fsync after it."""
    fsyncs = [at for at, operation in enumerate(log) if operation.kind == "fsync" and operation.path == STORE]
    replaced = [at for at, operation in enumerate(log) if operation.target.name == "current"]
    return [(max(f for f in fsyncs if f < at), at, min(f for f in fsyncs if f > at)) for at in replaced]


def test_a_current_that_is_replaced_before_its_generation_is_durable_is_found_out(
    log: list[Operation], tmp_path: Path
) -> None:
    before, replaced, _ = root_fsyncs_around_current(log)[1]
    careless = [operation for at, operation in enumerate(log) if at != before]
    with pytest.raises(C7Error):
        play(careless, tmp_path, seed=3, images=300, after=[replaced])


def test_a_commit_that_is_reported_before_the_root_is_durable_is_found_out(
    log: list[Operation], tmp_path: Path
) -> None:
    _, _, after = root_fsyncs_around_current(log)[1]
    careless = [operation for at, operation in enumerate(log) if at != after]
    with pytest.raises(AssertionError, match="1 is current, 2 was committed"):
        play(careless, tmp_path, seed=3, images=3000)
