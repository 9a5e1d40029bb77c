"""Many provisioners of one store at once: one build per engine, one generation more, the same one for all.

C7_CHAOS_SEED repeats a run's choices, C7_CHAOS_PROVISIONERS and C7_CHAOS_PROVISIONER_ROUNDS make it larger.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from runtimes.config import C7InferenceConfig
from runtimes.flight_plan import FlightPlan, FlightSection, ModelSection
from runtimes.store.engine_artifact import verify_artifact
from runtimes.store.engine_store import EngineStore
from runtimes.store.sha256_sidecar import sha256_of

PROVISIONERS = int(os.environ.get("C7_CHAOS_PROVISIONERS", "16"))
ROUNDS = int(os.environ.get("C7_CHAOS_PROVISIONER_ROUNDS", "200"))
MODELS = ("vpr", "matcher", "refiner")
LOCK_TIMEOUT_S = 250.0

WORKER = """
import os, sys
from pathlib import Path
import msgspec
from runtimes.flight_plan import FlightPlan
from runtimes.path_text import decode_path
from runtimes.provisioning.fake_builder import FakeBuilder
from runtimes.provisioning.provision import provision

class Counting(FakeBuilder):
    def build(self, request, **others):
        built = super().build(request, **others)
        os.write(log, f"{request.model}\\n".encode())
        return built

log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
print("ready", flush=True)
for line in sys.stdin:
    plan = msgspec.json.decode(line, type=FlightPlan, dec_hook=decode_path)
    steps = []
    generation = provision(
        plan, progress=lambda told: steps.append(told.step), builder=Counting(), lock_timeout_s=float(sys.argv[2])
    )
    engines = {model: entry.engine_sha256 for model, entry in generation.entries.items()}
    answer = [generation.number, generation.manifest_sha256, engines, steps[-1], "waiting" in steps]
    print(msgspec.json.encode(answer).decode(), flush=True)
"""

Answer = tuple[int, str, dict[str, str], str, bool]


def plan_in(folder: Path, workspace_mb: int) -> FlightPlan:
    return FlightPlan(
        flight=FlightSection(name="survey", store=folder / "engines"),
        runtime=C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"),
        models={
            model: ModelSection(source=folder / f"{model}.onnx", deadline_ms=100, workspace_mb=workspace_mb)
            for model in MODELS
        },
    )


def engine_of(plan: FlightPlan, model: str) -> str:
    """The hash of the engine that a fake builder makes of the present source."""
    return sha256_of(b"c7 fake engine\n" + plan.models[model].source.read_bytes())


def start_provisioners(stack: ExitStack, log: Path, count: int) -> list[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", WORKER, str(log), str(LOCK_TIMEOUT_S)]
    started = [
        stack.enter_context(
            subprocess.Popen(  # noqa: S603 - our own program
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        )
        for _ in range(count)
    ]
    for each in started:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    return started


def ask_all(provisioners: list[subprocess.Popen[str]], plan: FlightPlan) -> list[Answer]:
    request = msgspec.json.encode(plan, enc_hook=str).decode() + "\n"
    for each in provisioners:
        assert each.stdin is not None
        each.stdin.write(request)
        each.stdin.flush()
    answers: list[Answer] = []
    for each in provisioners:
        assert each.stdout is not None
        answers.append(msgspec.json.decode(each.stdout.readline(), type=Answer))
    return answers


def contend(folder: Path, provisioners: int, rounds: int, seed: int) -> dict[str, int]:
    """Each round changes some models, sometimes all by the plan, and lets every provisioner loose at once."""
    chance = random.Random(seed)
    log = folder / "builds"
    log.touch()
    figures = {"rounds": 0, "builds": 0, "waits": 0, "commits": 0}
    with ExitStack() as stack:
        processes = start_provisioners(stack, log, provisioners)
        workspace_mb = 1
        for number in range(1, rounds + 1):
            changed = set(chance.sample(MODELS, chance.randint(1, len(MODELS)))) if number > 1 else set(MODELS)
            for model in changed:
                (folder / f"{model}.onnx").write_bytes(f"{model} of round {number}".encode())
            if chance.random() < 0.2:
                workspace_mb, changed = number + 1, set(MODELS)
            plan = plan_in(folder, workspace_mb)
            log.write_bytes(b"")
            answers = ask_all(processes, plan)
            assert sorted(log.read_text().split()) == sorted(changed), f"round {number}: builds"
            assert {answer[:2] for answer in answers} == {answers[0][:2]}, f"round {number}: generations differ"
            assert answers[0][0] == number
            expected = {model: engine_of(plan, model) for model in MODELS}
            assert all(answer[2] == expected for answer in answers), f"round {number}: a mixed generation"
            ends = sorted(answer[3] for answer in answers)
            assert ends == ["committed"] + ["up_to_date"] * (provisioners - 1), f"round {number}: {ends}"
            figures["rounds"] += 1
            figures["builds"] += len(changed)
            figures["commits"] += 1
            figures["waits"] += sum(answer[4] for answer in answers)
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0
    store = EngineStore(folder / "engines")
    assert store.numbers() == list(range(1, rounds + 1))
    for number in store.numbers():
        generation = store.generation(number)
        assert (set(generation.entries), generation.damaged) == (set(MODELS), {})
        for entry in generation.entries.values():
            verify_artifact(entry)
    assert sorted(path.name for path in store.root.iterdir() if not path.name.startswith("gen-")) == [
        ".lock",
        "current",
    ]
    return figures


def test_four_provisioners_at_once_build_each_engine_once(tmp_path: Path) -> None:
    figures = contend(tmp_path, provisioners=4, rounds=3, seed=4)
    assert (figures["rounds"], figures["commits"]) == (3, 3)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_many_provisioners_at_once_build_each_engine_once(tmp_path: Path) -> None:
    seed = int(os.environ.get("C7_CHAOS_SEED", time.time_ns() % 1_000_000))
    print(f"\nC7_CHAOS_SEED={seed}")
    figures = contend(tmp_path, provisioners=PROVISIONERS, rounds=ROUNDS, seed=seed)
    print(f"{PROVISIONERS} provisioners at once: {figures}")
    assert figures["waits"] > 0, "they never met: nothing was shown"
