"""A process killed anywhere in a provisioning run: the store holds the former or the next generation, whole.

Killed before every single operation on the disk and in the middle of every write, at random points in time, and, as
the real command, in the middle of its system calls. `make chaos` runs all of it: C7_CHAOS_KILLS random points in time
(1,000), drawn from C7_CHAOS_SEED, which is printed.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from runtimes.config import C7InferenceConfig
from runtimes.flight_plan import FlightPlan, FlightSection, ModelSection
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.provisioning.fake_builder import FakeBuilder
from runtimes.provisioning.provision import provision
from runtimes.store.disk import Disk
from runtimes.store.engine_artifact import read_verified, verify_artifact
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.fake_disk import FakeDisk, Operation
from runtimes.store.sha256_sidecar import sha256_of

KILLS = int(os.environ.get("C7_CHAOS_KILLS", "1000"))
SEED = int(os.environ.get("C7_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
STRIDE = 3
FORMER = {"vpr": b"vpr" * 3000, "matcher": b"the former matcher" * 500}
NEXT = {"vpr": FORMER["vpr"], "matcher": b"the next matcher" * 600}


def killed_disk(at: int, *, fsyncs: bool = True) -> FakeDisk:
    """Ends the process that uses it by SIGKILL before operation number `at`; a write is done by half then."""
    operations = itertools.count()

    def before(_operation: Operation, _path: Path | None) -> None:
        if next(operations) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return FakeDisk(before, fsyncs=fsyncs)


ALIVE = 10**9


def plan_of(root: Path, sources: dict[str, bytes]) -> FlightPlan:
    models: dict[str, ModelSection] = {}
    for model, data in sources.items():
        source = root.parent / f"{model}.onnx"
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


def engines_of(root: Path) -> dict[str, bytes]:
    generation = EngineStore(root).current()
    assert generation is not None
    assert generation.damaged == {}
    for entry in generation.entries.values():
        verify_artifact(entry)
    return {
        model: read_verified(entry).removeprefix(b"c7 fake engine\n") for model, entry in generation.entries.items()
    }


def judge(root: Path) -> str:
    """Which generation a killed run left; and the next run, which nobody kills, leaves nothing else behind."""
    found = engines_of(root)
    assert found in (FORMER, NEXT), "neither the former nor the next generation"
    commit(root, NEXT, killed_disk(ALIVE, fsyncs=False))
    assert engines_of(root) == NEXT
    hidden = [path.name for path in root.rglob(".*")]
    assert hidden == [".lock"], hidden
    return "former" if found == FORMER else "next"


def run_killed(root: Path, disk: Disk, after_s: float | None = None) -> bool:
    """Fork a run, and say whether it was killed: by its disk, or from here after that time."""
    started, begins = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begins, b"!")
        commit(root, NEXT, disk)
        os._exit(0)
    os.read(started, 1)
    os.close(started)
    os.close(begins)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert status == 0 or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL), status
    return status != 0


def provisioned_store(folder: Path, fsyncs: bool) -> Path:
    template = folder / "template"
    commit(template, FORMER, killed_disk(ALIVE, fsyncs=fsyncs))
    return template


def kill_at_every_operation(folder: Path, stride: int, fsyncs: bool) -> Counter[str]:
    """Kill a run before every `stride`-th operation, until one is not reached any more."""
    template = provisioned_store(folder, fsyncs)
    outcomes: Counter[str] = Counter()
    for at in range(0, 10_000, stride):
        root = folder / str(at)
        shutil.copytree(template, root)
        killed = run_killed(root, killed_disk(at, fsyncs=fsyncs))
        outcomes[judge(root)] += killed
        shutil.rmtree(root)
        if not killed:
            return outcomes
    raise AssertionError("the run never ended")


def kill_at_random_times(folder: Path, kills: int, seed: int) -> Counter[str]:
    """Kill that many runs, each after a random time within what the quickest ones take."""
    template = provisioned_store(folder, fsyncs=True)
    chance = random.Random(seed)
    root = folder / "undisturbed"
    shutil.copytree(template, root)
    began_ns = time.monotonic_ns()
    run_killed(root, killed_disk(ALIVE))
    longest_s = (time.monotonic_ns() - began_ns) / 1e9
    outcomes: Counter[str] = Counter()
    while outcomes["former"] + outcomes["next"] < kills:
        shutil.rmtree(root)
        shutil.copytree(template, root)
        after_s = chance.uniform(0, longest_s)
        killed = run_killed(root, killed_disk(ALIVE), after_s)
        if not killed:  # it was quicker than that
            longest_s = after_s * 1.1
        outcomes[judge(root) if killed else "ended before the kill"] += 1
        assert sum(outcomes.values()) < 10 * kills, outcomes
    return outcomes


def in_a_process_of_its_own(*arguments: object) -> dict[str, int]:
    """Forks are safe only where no other test has left a thread."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, __file__, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=dict[str, int])


def test_a_kill_before_an_operation_leaves_the_former_or_the_next_generation(tmp_path: Path) -> None:
    outcomes = in_a_process_of_its_own("operations", tmp_path, STRIDE, 0)
    assert outcomes["former"] * STRIDE > 60
    assert outcomes["next"] > 0


@pytest.mark.chaos
def test_a_kill_before_each_operation_leaves_the_former_or_the_next_generation(tmp_path: Path) -> None:
    outcomes = in_a_process_of_its_own("operations", tmp_path, 1, 1)
    print(f"\nSIGKILL before each of {sum(outcomes.values())} operations: {outcomes}, none torn")


@pytest.mark.chaos
def test_a_kill_at_any_time_leaves_the_former_or_the_next_generation(tmp_path: Path) -> None:
    print(f"\nC7_CHAOS_SEED={SEED}")
    outcomes = in_a_process_of_its_own("times", tmp_path, KILLS, SEED)
    print(f"SIGKILL at random times: {outcomes}, none torn")
    assert outcomes["former"] > 0


# --- the real command -------------------------------------------------------------------------------------------

STRACE = shutil.which("strace")
RENAME, LINK, UNLINK = "/^rename(at2?)?$", "/^link(at)?$", "/^unlink(at)?$"
IN_THE_COMMAND = [(RENAME, at) for at in (1, 2, 3, 4)] + [("fsync", at) for at in (2, 6, 9, 12, 14)]
IN_THE_COMMAND += [(LINK, 2), (LINK, 7), (UNLINK, 1), (UNLINK, 4)]
IN_ITS_CHILD = [(RENAME, 6), ("fsync", 8)]
"""System calls, and which one of their kind. What a process does before its child has done as many is in neither."""


def save_model(path: Path, scale: float) -> None:
    np, onnx = pytest.importorskip("numpy"), pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(scale * np.eye(4, dtype=np.float32), "w")
    values = [helper.make_tensor_value_info(name, kind, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def run_command(plan: Path, *before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [*before, sys.executable, "-m", "actors", "provision", str(plan)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def whole(root: Path) -> dict[str, EngineCacheEntry]:
    generation = EngineStore(root).current()
    assert generation is not None
    assert generation.damaged == {}
    for entry in generation.entries.values():
        verify_artifact(entry)
    return generation.entries


@pytest.mark.chaos
@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
def test_the_real_command_killed_in_its_system_calls_leaves_one_generation_whole(tmp_path: Path) -> None:
    plan = tmp_path / "flight.toml"
    sections = (
        f'[models.{model}]\nsource = "{model}.onnx"\nprecision = "fp32"\ndeadline_ms = 50\n' for model in ("a", "b")
    )
    plan.write_text(
        '[flight]\nname = "survey"\n[runtime]\nruntime = "onnx_trt_ep"\nprovider = "cpu"\n' + "".join(sections)
    )
    for model in ("a", "b"):
        save_model(tmp_path / f"{model}.onnx", 1.0)
    assert run_command(plan).returncode == 0
    store, template = tmp_path / "engines", tmp_path / "template"
    former = whole(store)
    save_model(tmp_path / "b.onnx", 2.0)
    shutil.copytree(store, template)
    outcomes: Counter[str] = Counter()
    for call, at, follow in [*((*each, ()) for each in IN_THE_COMMAND), *((*each, ("-f",)) for each in IN_ITS_CHILD)]:
        shutil.rmtree(store)
        shutil.copytree(template, store)
        inject = ["-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={at}"]
        killed = run_command(plan, str(STRACE), *follow, *inject)
        found = whole(store)
        assert found["a"].engine_sha256 == former["a"].engine_sha256
        again = run_command(plan)
        assert again.returncode == 0, again.stderr
        assert whole(store)["b"].source_sha256 == sha256_of((tmp_path / "b.onnx").read_bytes())
        outcomes["former" if found == former else "next"] += killed.returncode != 0
        outcomes["ended before that call"] += killed.returncode == 0
    print(f"\nc7 provision killed in its system calls: {dict(outcomes)}, none torn")
    assert outcomes["former"] > 5
    assert outcomes["next"] > 0


if __name__ == "__main__":
    what, where, first, second = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    counts = kill_at_every_operation(where, first, bool(second)) if what == "operations" else None
    print(msgspec.json.encode(counts or kill_at_random_times(where, first, second)).decode())
