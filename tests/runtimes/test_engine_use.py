"""What an engine holds is given back once, and never under a run."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from messages import InferenceError
from runtimes.engine_use import EngineUse


@pytest.fixture
def use() -> EngineUse:
    return EngineUse("vpr")


def test_an_engine_that_nobody_runs_is_given_back_at_once(use: EngineUse) -> None:
    given_back: list[int] = []
    use.end(lambda: given_back.append(threading.get_ident()))
    assert given_back == [threading.get_ident()]


def test_after_its_end_no_run_begins(use: EngineUse) -> None:
    use.end(lambda: None)
    with pytest.raises(InferenceError, match="vpr: the engine was put away while it was to run"), use.running():
        pytest.fail("it ran")


def test_the_last_run_gives_back_what_was_put_away_under_it(use: EngineUse) -> None:
    given_back: list[str] = []
    with use.running():
        with use.running():
            use.end(lambda: given_back.append("memory"))
            assert given_back == []
        assert given_back == []
    assert given_back == ["memory"]


def test_a_run_that_fails_gives_back_too(use: EngineUse) -> None:
    given_back: list[str] = []

    def fail() -> None:
        with use.running():
            use.end(lambda: given_back.append("memory"))
            raise InferenceError("716")

    with pytest.raises(InferenceError, match="716"):
        fail()
    assert given_back == ["memory"]


def test_what_is_suspended_under_a_run_and_then_released_is_released(use: EngineUse) -> None:
    done: list[str] = []
    with use.running():
        use.end(lambda: done.append("suspended"))
        use.end(lambda: done.append("released"))
    assert done == ["released"]


def test_what_was_suspended_can_still_be_released(use: EngineUse) -> None:
    done: list[str] = []
    use.end(lambda: done.append("suspended"))
    use.end(lambda: done.append("released"))
    assert done == ["suspended", "released"]


def test_what_giving_back_raises_is_told_to_whoever_does_it(use: EngineUse) -> None:
    def fail() -> None:
        raise InferenceError("cudaFree")

    with pytest.raises(InferenceError, match="cudaFree"), use.running():
        use.end(fail)


def test_from_many_threads_it_is_given_back_once_and_under_no_run(use: EngineUse) -> None:
    inside = 0
    lock = threading.Lock()
    found: list[int] = []
    begun = threading.Barrier(9, timeout=60)

    def run() -> None:
        nonlocal inside
        with use.running():
            with lock:
                inside += 1
            begun.wait()
            with lock:
                inside -= 1

    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(run) for _ in range(8)]
        begun.wait()
        use.end(lambda: found.append(inside))
        for each in runs:
            each.result(timeout=60)
    assert found == [0]
