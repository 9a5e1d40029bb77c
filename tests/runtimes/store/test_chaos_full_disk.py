"""A disk that is full, or fails, at any operation: an error that says so, and the store as it was.

Each operation of a provisioning run is refused with ENOSPC, EFBIG and EIO, once and from then on; then the real thing,
small disks of every size and the kernel's limit on a file's size, in a process of its own.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from messages import EngineStoreError
from runtimes.config import C7InferenceConfig
from runtimes.flight_plan import FlightPlan, FlightSection, ModelSection
from runtimes.provisioning.fake_builder import FakeBuilder
from runtimes.provisioning.provision import provision
from runtimes.store.disk import Disk
from runtimes.store.engine_artifact import read_verified, verify_artifact
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.fake_disk import FakeDisk, Operation

FORMER = {"vpr": b"vpr" * 3000, "matcher": b"the former matcher" * 500}
NEXT = {"vpr": FORMER["vpr"], "matcher": b"the next matcher" * 600}
NEVER = 10**9
REMOVALS = ("unlink", "remove_folder", "list_folder")


class FailingDisk(FakeDisk):
    """Refuses operation number `at` with this error, and where `lasting` everything after it too.

    A full disk still lets files go.
    """

    def __init__(self, at: int, code: int, *, lasting: bool) -> None:
        super().__init__(self._step, fsyncs=False)
        self.left = at
        self.code = code
        self.lasting = lasting
        self.failed: list[str] = []

    def _step(self, operation: Operation, path: Path | None) -> None:
        self.left -= 1
        removal_succeeds = self.code != errno.EIO and operation in REMOVALS
        if removal_succeeds or not (self.left == -1 or (self.lasting and self.left < 0)):
            return
        self.failed.append(operation)
        raise OSError(self.code, os.strerror(self.code), None if path is None else str(path))


def healthy() -> FailingDisk:
    return FailingDisk(NEVER, 0, lasting=False)


def plan_of(root: Path, sources: dict[str, bytes]) -> FlightPlan:
    models: dict[str, ModelSection] = {}
    for model, data in sources.items():
        source = root.parent / f"{model}.onnx"
        if not source.exists() or source.read_bytes() != data:
            source.write_bytes(data)
        models[model] = ModelSection(source=source, precision="fp32", deadline_ms=100)
    return FlightPlan(
        flight=FlightSection(name="survey", store=root),
        runtime=C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"),
        models=models,
    )


def commit(root: Path, sources: dict[str, bytes], disk: Disk) -> Generation:
    """Provision the store with engines made of these sources."""
    return provision(
        plan_of(root, sources),
        progress=lambda _: None,
        builder=FakeBuilder(disk=disk),
        disk=disk,
        detect_power=lambda: None,
    )


def engines_of(generation: Generation | None) -> dict[str, bytes]:
    assert generation is not None
    assert generation.damaged == {}
    for entry in generation.entries.values():
        verify_artifact(entry)
    return {
        model: read_verified(entry).removeprefix(b"c7 fake engine\n") for model, entry in generation.entries.items()
    }


def half_written(root: Path) -> list[str]:
    """Whatever is neither a whole generation, a whole draft, `current` nor the lock."""
    wrong = [str(path.relative_to(root)) for path in root.rglob("*.part")]
    for folder in sorted([*root.glob("gen-*"), *root.glob(".drafts/[!.]*")]):
        names = {path.name for path in folder.iterdir() if path.name.endswith(".engine")}
        if not names or not all((folder / f"{name}.sha256").is_file() for name in names):
            wrong.append(folder.name)
    expected = {".lock", ".drafts", "current", *(path.name for path in root.glob("gen-*"))}
    return wrong + sorted({path.name for path in root.iterdir()} - expected)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template") / "engines"
    commit(root, FORMER, healthy())
    return root


FAULTS = [(code, lasting) for code in (errno.ENOSPC, errno.EFBIG, errno.EIO) for lasting in (False, True)]


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=lambda number: f"{errno.errorcode[FAULTS[number][0]]}")
def test_an_operation_that_fails_leaves_the_store_as_it_was_and_the_error_says_so(
    template: Path, tmp_path: Path, number: int
) -> None:
    """Each kind of fault at every sixth operation, each kind at others."""
    outcomes = fail_at_every_operation(template, tmp_path / "engines", *FAULTS[number], number, len(FAULTS))
    assert outcomes["former"] > 5


@pytest.mark.chaos
@pytest.mark.parametrize(("code", "lasting"), FAULTS)
def test_whichever_operation_fails_the_store_is_as_it_was_and_the_error_says_so(
    template: Path, tmp_path: Path, code: int, lasting: bool
) -> None:
    outcomes = fail_at_every_operation(template, tmp_path / "engines", code, lasting, 0, 1)
    print(f"\n{errno.errorcode[code]} at each operation{' and after it' if lasting else ''}: {dict(outcomes)}")
    assert outcomes["former"] > 50


def fail_at_every_operation(
    template: Path, root: Path, code: int, lasting: bool, first: int, stride: int
) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    for at in range(first, NEVER, stride):
        shutil.copytree(template, root)
        store, disk, text = EngineStore(root), FailingDisk(at, code, lasting=lasting), ""
        try:
            commit(root, NEXT, disk)
        except EngineStoreError as error:
            text = str(error)
        if disk.left >= 0:
            break
        found = engines_of(store.current())
        number = 1 if found == FORMER else 2
        assert found == (FORMER, NEXT)[number - 1], text
        if text:
            assert str(root) in text
            assert os.strerror(code) in text
            says_next = "generation 2 is current" in text or "what was committed is current" in text
            assert says_next == (number == 2), text
            if disk.failed[0] == "write" and code == errno.ENOSPC:
                assert "bytes are needed" in text
        else:
            assert number == 2
        outcomes["former" if number == 1 else "next"] += 1
        if not lasting and disk.failed and disk.failed[0] not in REMOVALS:
            assert half_written(root) == [], (at, disk.failed, text)
        commit(root, NEXT, healthy())
        assert engines_of(store.current()) == NEXT
        assert [path.name for path in root.rglob(".*")] == [".lock"]
        shutil.rmtree(root)
    return outcomes


def test_a_root_whose_last_fsync_fails_is_said_to_be_unconfirmed_and_keeps_both_generations(
    template: Path, tmp_path: Path
) -> None:
    root = tmp_path / "engines"
    shutil.copytree(template, root)

    class Unconfirmed(FailingDisk):
        def fsync(self, descriptor: int) -> None:
            if (root / "current").read_bytes() != former and not self.failed:
                self.failed.append("fsync")
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    former = (root / "current").read_bytes()
    with pytest.raises(EngineStoreError) as refused:
        commit(root, NEXT, Unconfirmed(NEVER, 0, lasting=False))
    assert "the disk does not confirm generation 2 (Input/output error): generation 1 is current" in str(refused.value)
    assert "after a power cut it may be that one or the other, each of them whole" in str(refused.value)
    store = EngineStore(root)
    assert engines_of(store.current()) == FORMER
    assert engines_of(store.generation(2)) == NEXT
    assert commit(root, NEXT, healthy()).number == 3


def test_a_first_generation_that_is_not_confirmed_leaves_none_current(tmp_path: Path) -> None:
    class Unconfirmed(FailingDisk):
        def fsync(self, descriptor: int) -> None:
            if (tmp_path / "engines" / "current").exists():
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(EngineStoreError, match=r"does not confirm generation 1 .*: no generation is current"):
        commit(tmp_path / "engines", FORMER, Unconfirmed(NEVER, 0, lasting=False))
    assert EngineStore(tmp_path / "engines").current() is None


# --- real disks -------------------------------------------------------------------------------------------------


class Unsuspecting(Disk):
    """A real disk that does not say what is free: the run meets its end."""

    def free_bytes(self, path: Path) -> int | None:
        if sys._getframe(1).f_code.co_name == "refuse_if_full":
            return None
        return super().free_bytes(path)


def mount_small_disks(folder: Path) -> dict[str, int]:
    """Provision on small disks, a page larger each, until the next generation fits; alone in a mount namespace."""
    outcomes: Counter[str] = Counter()
    for pages in range(10, 1000):
        for disk in (Disk(), Unsuspecting()):
            folder.mkdir()
            mount = ["/usr/bin/mount", "-t", "tmpfs", "-o", f"size={pages * 4096}", "none", str(folder)]
            subprocess.run(mount, check=True)  # noqa: S603
            store = EngineStore(folder)
            try:
                commit(store.root, FORMER, healthy())
            except EngineStoreError:
                outcomes["too small for the first"] += 1
                assert store.current() is None
            else:
                outcomes[fill(store, disk)] += 1
            subprocess.run(["/usr/bin/umount", str(folder)], check=True)  # noqa: S603
            folder.rmdir()
        if outcomes["fits"] > 1:
            return outcomes
    raise AssertionError(outcomes)


def fill(store: EngineStore, disk: Disk) -> str:
    try:
        commit(store.root, NEXT, disk)
    except EngineStoreError as error:
        text = str(error)
    else:
        assert engines_of(store.current()) == NEXT
        return "fits"
    assert "No space left on device" in text
    assert engines_of(store.current()) == FORMER
    assert half_written(store.root) == []
    return "says how much is missing" if "are missing" in text else "says that there is no space"


def limit_file_size(folder: Path) -> dict[str, int]:
    store = EngineStore(folder)
    commit(store.root, FORMER, healthy())
    plan_of(store.root, NEXT)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    with pytest.raises(EngineStoreError) as refused:
        commit(store.root, NEXT, Disk())
    expected = "File too large: 9615 bytes are needed in one file, this process may write 8192 (ulimit -f), 1423 bytes"
    assert expected in str(refused.value)
    assert engines_of(store.current()) == FORMER
    assert half_written(store.root) == []
    return {"refused": 1}


def in_a_process_of_its_own(what: str, folder: Path, *before: str) -> dict[str, int]:
    done = subprocess.run(  # noqa: S603
        [*before, sys.executable, __file__, what, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=dict[str, int])


def may_mount() -> bool:
    command = ["/usr/bin/unshare", "-m", "/usr/bin/mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603
    except OSError:
        return False


@pytest.mark.skipif(not may_mount(), reason="this user may not mount a small disk")
def test_disks_of_every_size_that_is_too_small_leave_the_former_generation(tmp_path: Path) -> None:
    outcomes = in_a_process_of_its_own("disks", tmp_path / "disk", "/usr/bin/unshare", "-m")
    print(f"\n{outcomes}")
    assert outcomes["says how much is missing"] > 5


def test_the_limit_on_file_size_leaves_the_former_generation_and_is_named(tmp_path: Path) -> None:
    assert in_a_process_of_its_own("limit", tmp_path / "engines") == {"refused": 1}


if __name__ == "__main__":
    carry_out = {"disks": mount_small_disks, "limit": limit_file_size}[sys.argv[1]]
    print(msgspec.json.encode(carry_out(Path(sys.argv[2]))).decode())
