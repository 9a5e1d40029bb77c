"""Minutes of faults: engines that crash, run out of memory, exit and fail to load, under eight impatient producers.

`make chaos` runs it. The seed is printed; C7_CHAOS_SEED repeats a run's choices, C7_CHAOS_SECONDS makes it longer.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from loguru import logger

from actors import RestartPolicy, Supervision, supervise
from messages import (
    EngineDeserializeError,
    InferenceError,
    InferRejected,
    InvalidInputError,
    Outcome,
    OutOfMemoryError,
    Tensor,
)
from runtimes import FakeRuntime, computes, fails_to_load, raises, returns
from runtimes.fake_runtime import Step

MODELS = ("vpr", "extractor", "matcher", "refiner")
IMAGE = {"image": np.ones(8, np.float32)}
RESULT = {"y": np.ones(8, np.float32)}
PRODUCERS = 8
SECONDS = float(os.environ.get("C7_CHAOS_SECONDS", "60"))


def exits(_inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    raise SystemExit(3)


FAULTS: tuple[Callable[[], Step], ...] = (
    lambda: raises(InferenceError("716")),
    lambda: raises(InvalidInputError("a shape")),
    lambda: raises(OutOfMemoryError("2 GiB")),
    lambda: computes(exits),
    lambda: fails_to_load(EngineDeserializeError("busy")),
)


def script(random_: random.Random) -> list[Step]:
    steps = [random_.choice(FAULTS)() if random_.random() < 0.03 else returns(RESULT) for _ in range(3000)]
    return [returns(RESULT), *steps, returns(RESULT)]


def kind(outcome: Outcome) -> str:
    return outcome.reason if isinstance(outcome, InferRejected) else "completed"


@pytest.mark.chaos
@pytest.mark.timeout(SECONDS + 120)
def test_every_request_has_one_outcome_through_minutes_of_faults() -> None:
    seed = int(os.environ.get("C7_CHAOS_SEED", time.time_ns() % 1_000_000))
    print(f"\nC7_CHAOS_SEED={seed}")
    logger.remove()
    scripts = {model: script(random.Random(f"{seed}/{model}")) for model in MODELS}
    fake = FakeRuntime(scripts)
    seen: Counter[tuple[str, str]] = Counter()
    lock = threading.Lock()
    end_s = time.monotonic() + SECONDS

    def produce(c7: Supervision, number: int) -> None:
        choose = random.Random(f"{seed}/producer {number}")
        client = c7.client(f"c{number}")
        mine: Counter[tuple[str, str]] = Counter()
        frame = 0
        while time.monotonic() < end_s:
            frame += 1
            model = choose.choice(MODELS)
            within_ms = choose.choice((0.05, 1.0, 20.0, 1000.0))
            if choose.random() < 0.5:
                outcomes = client.infer_many(
                    model, [IMAGE] * choose.randint(1, 13), within_ms=within_ms, frame_id=frame
                )
            else:
                pending = [client.submit(model, IMAGE, within_ms=within_ms, frame_id=frame) for _ in range(4)]
                for each in pending:
                    if choose.random() < 0.3:
                        each.cancel()
                outcomes = [each.result() for each in pending]
            mine.update((model, kind(outcome)) for outcome in outcomes)
        with lock:
            seen.update(mine)

    policy = RestartPolicy(max_restarts=1_000_000, first_delay_ns=1000, max_delay_ns=1_000_000)
    with supervise(fake, fake.entries(), mode="recovery", policy=policy) as c7:
        threads = [threading.Thread(target=produce, args=(c7, number), daemon=True) for number in range(PRODUCERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS + 60)
        assert not any(thread.is_alive() for thread in threads)
        tallies = c7.tallies()

    total = sum(tally.submitted for tally in tallies.values())
    print(f"{total} requests, {sum(fake.loads(model) for model in MODELS)} engine loads, {SECONDS:g} s")
    for model, tally in tallies.items():
        counted: dict[str, int] = {"completed": tally.completed}
        counted.update({str(why): count for why, count in tally.rejected.items()})
        theirs = {reason: count for (name, reason), count in seen.items() if name == model}
        print(model, {reason: count for reason, count in sorted(counted.items()) if count})
        assert theirs == {reason: count for reason, count in counted.items() if count}
        assert tally.open == 0
    assert fake.peak_concurrency() == 1
    assert fake.loaded == ()
