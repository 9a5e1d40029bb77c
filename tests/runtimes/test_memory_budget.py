"""Memory is reckoned before the first engine is loaded, against what the machine has left at that moment."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import TakeoffRefusedError
from runtimes.available_memory import AvailableMemory
from runtimes.build_report import BuildReport
from runtimes.fake_runtime import FakeRuntime
from runtimes.fake_steps import returns
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.measurements import MemoryUse
from runtimes.memory_budget import (
    MIB,
    MemoryBudget,
    plan_memory,
    refuse_if_short,
    restart_shortage,
    unreturned_bytes,
)


def engine(
    model: str, file_mb: int, load_mb: int | None = None, run_mb: int = 0, device_mb: tuple[int, int] = (0, 0)
) -> EngineCacheEntry:
    """`load_mb=None`: an engine that nobody measured."""
    use = None
    if load_mb is not None:
        use = MemoryUse(
            load_bytes=load_mb * MIB,
            run_bytes=run_mb * MIB,
            device_load_bytes=device_mb[0] * MIB,
            device_run_bytes=device_mb[1] * MIB,
        )
    entry = FakeRuntime({model: [returns({})]}).entry(model)
    return msgspec.structs.replace(entry, engine_size_bytes=file_mb * MIB, memory=use)


def plan(
    *entries: EngineCacheEntry, host_mb: int = 8000, gpu_mb: int | None = None, reserve_mb: int = 256, ahead_mb: int = 0
) -> MemoryBudget:
    available = AvailableMemory(host_bytes=host_mb * MIB, device_bytes=None if gpu_mb is None else gpu_mb * MIB)
    return plan_memory(entries, available, reserve_mb=reserve_mb, read_ahead_bytes=ahead_mb * MIB)


def peaks_mb(budget: MemoryBudget) -> list[int]:
    return [step.peak_bytes // MIB for step in budget.steps]


def test_each_engine_has_its_file_beside_it_only_until_it_is_loaded() -> None:
    budget = plan(engine("a", 100, 150, 50), engine("b", 10, 20, 30))
    assert peaks_mb(budget) == [100 + 150 + 50, (150 + 50) + 10 + 20 + 30]


def with_activations(entry: EngineCacheEntry, activation_mb: int) -> EngineCacheEntry:
    report = BuildReport(
        builder="api",
        tensorrt="10.3.0",
        strongly_typed=False,
        optimization_level=3,
        flags=(),
        activation_bytes=(activation_mb * MIB,),
    )
    return msgspec.structs.replace(entry, build=report)


def sharing(*entries: EngineCacheEntry, gpu_mb: int | None = None) -> MemoryBudget:
    available = AvailableMemory(host_bytes=8000 * MIB, device_bytes=None if gpu_mb is None else gpu_mb * MIB)
    return plan_memory(entries, available, reserve_mb=256, read_ahead_bytes=0, share_activation_memory=True)


def test_the_block_that_engines_share_counts_once_and_twice_while_a_larger_one_takes_its_place() -> None:
    engines = [with_activations(engine(name, 1, 10 + mb), mb) for name, mb in (("a", 300), ("b", 200), ("c", 500))]
    assert peaks_mb(sharing(*engines)) == [1 + 10 + 300, 1 + 20 + 300, 1 + 30 + 500 + 300]
    assert [step.load_bytes // MIB for step in sharing(*engines).steps] == [310, 10, 210]
    assert peaks_mb(plan(*engines)) == [311, 521, 1031], "an engine's own activations are in its measurement"


def test_an_engine_that_was_measured_to_take_less_than_its_activations_takes_no_less_than_nothing() -> None:
    engines = [with_activations(engine(name, 1, 10), 300) for name in "ab"]
    assert [step.load_bytes // MIB for step in sharing(*engines).steps] == [10, 0]


def test_the_block_that_engines_share_lies_on_a_gpu_that_has_memory_of_its_own() -> None:
    engines = [
        with_activations(engine(name, 1, 10, device_mb=(20 + mb, 5)), mb) for name, mb in (("a", 300), ("b", 500))
    ]
    budget = sharing(*engines, gpu_mb=1000)
    assert peaks_mb(budget) == [11, 21]
    assert [step.device_peak_bytes // MIB for step in budget.steps] == [25 + 300, 50 + 500 + 300]


def test_a_large_engine_is_dearest_when_it_loads_last() -> None:
    large, small = engine("large", 500, 600, 0), engine("small", 10, 20, 0)
    assert max(peaks_mb(plan(large, small))) == 1100
    assert max(peaks_mb(plan(small, large))) == 1120


@pytest.mark.parametrize(("ahead_mb", "buffers_mb"), [(0, [30, 20, 10]), (25, [55, 30, 10]), (512, [60, 30, 10])])
def test_files_that_are_read_ahead_count_up_to_their_limit_and_to_what_is_left(
    ahead_mb: int, buffers_mb: list[int]
) -> None:
    entries = [engine("a", 30, 0), engine("b", 20, 0), engine("c", 10, 0)]
    assert [step.buffer_bytes // MIB for step in plan(*entries, ahead_mb=ahead_mb).steps] == buffers_mb


def test_what_fits_to_the_last_byte_flies_and_one_more_byte_does_not() -> None:
    entries = [engine("a", 100, 150, 50), engine("b", 10, 20, 30)]
    fits = plan(*entries, host_mb=300 + 256)
    assert fits.shortages == ()
    refuse_if_short(fits)
    short = msgspec.structs.replace(fits, available=AvailableMemory(host_bytes=(300 + 256) * MIB - 1))
    with pytest.raises(TakeoffRefusedError, match="1 MiB are missing"):
        refuse_if_short(short)


def test_a_refusal_names_the_figures_the_worst_moment_each_engine_and_what_to_do() -> None:
    with pytest.raises(TakeoffRefusedError) as refusal:
        refuse_if_short(plan(engine("vpr", 100, 150, 50), engine("matcher", 400), host_mb=1000))
    text = str(refusal.value)
    assert "while matcher loads the engines need 1400 MiB" in text
    assert "256 MiB are kept in reserve ([flight] memory_reserve_mb)" in text
    assert "available are 1000 MiB: 656 MiB are missing" in text
    assert "vpr 200 MiB beside a file buffer of 100 MiB" in text
    assert "matcher estimated 800 MiB beside a file buffer of 400 MiB" in text
    assert "End other processes" in text


def test_an_engine_that_nobody_measured_counts_twice_its_file_and_says_so() -> None:
    [step] = plan(engine("a", 100)).steps
    assert step.estimated
    assert (step.load_bytes, step.run_bytes, step.device_load_bytes) == (100 * MIB, 100 * MIB, 0)
    [step] = plan(engine("a", 100), gpu_mb=1000).steps
    assert (step.device_load_bytes, step.device_run_bytes) == (100 * MIB, 100 * MIB)
    [step] = plan(engine("a", 100, 7)).steps
    assert not step.estimated


def test_a_discrete_gpus_memory_is_held_against_its_own() -> None:
    entries = [engine("a", 1, 1, 1, device_mb=(300, 100)), engine("b", 1, 1, 1, device_mb=(200, 100))]
    assert plan(*entries, gpu_mb=700).shortages == ()
    [shortage] = plan(*entries, gpu_mb=699).shortages
    assert shortage == "GPU memory: with b the engines need 700 MiB; free are 699 MiB: 1 MiB are missing"
    with pytest.raises(TakeoffRefusedError, match="a 2 MiB and 400 MiB of the GPU beside"):
        refuse_if_short(plan(*entries, gpu_mb=699))
    assert len(plan(*entries, gpu_mb=699, host_mb=1).shortages) == 2


engines = st.builds(
    engine,
    st.just("m"),
    st.integers(1, 900),
    st.one_of(st.none(), st.integers(0, 900)),
    st.integers(0, 900),
)


@given(entries=st.lists(engines, min_size=1, max_size=6), ahead_mb=st.integers(0, 1000))
def test_no_moment_of_a_takeoff_needs_more_than_was_reckoned(entries: list[EngineCacheEntry], ahead_mb: int) -> None:
    """Against a takeoff played through: an engine's own file is handed over, and the next ones fill the limit."""
    budget = plan(*entries, ahead_mb=ahead_mb)
    highest = max(step.peak_bytes for step in budget.steps)
    resident = 0
    for index, entry in enumerate(entries):
        ahead = 0
        for each in entries[index + 1 :]:  # as many whole files as fit the limit
            if ahead + each.engine_size_bytes <= ahead_mb * MIB:
                ahead += each.engine_size_bytes
        use = entry.memory or MemoryUse(load_bytes=entry.engine_size_bytes, run_bytes=entry.engine_size_bytes)
        resident += use.load_bytes
        assert resident + entry.engine_size_bytes + ahead <= highest
        resident += use.run_bytes
        assert resident + ahead <= highest


@given(entries=st.lists(engines, min_size=2, max_size=6), dropped=st.integers(0, 5))
def test_a_flight_with_fewer_engines_never_needs_more(entries: list[EngineCacheEntry], dropped: int) -> None:
    fewer = [entry for index, entry in enumerate(entries) if index != dropped % len(entries)]
    assert max(peaks_mb(plan(*fewer, ahead_mb=512))) <= max(peaks_mb(plan(*entries, ahead_mb=512)))


# One engine that is loaded again.


def available(host_mb: int, gpu_mb: int | None = None, *, less_bytes: int = 0) -> AvailableMemory:
    device_bytes = None if gpu_mb is None else gpu_mb * MIB - less_bytes
    return AvailableMemory(host_bytes=host_mb * MIB - less_bytes, device_bytes=device_bytes)


def test_a_restart_that_fits_to_the_last_byte_loads_and_one_byte_less_does_not() -> None:
    entry = engine("vpr", 100, 150, 50)
    assert restart_shortage(entry, available(300)) == ""
    assert restart_shortage(entry, available(300, less_bytes=1)) == (
        "memory: loading vpr again needs 300 MiB (file buffer 100 MiB, engine 150 MiB, runs 50 MiB); available are"
        " 300 MiB: 1 MiB are missing"
    )


def test_a_restart_on_a_discrete_gpu_has_room_in_both_memories_or_says_where_not() -> None:
    entry = engine("vpr", 100, 10, 20, device_mb=(150, 50))
    assert restart_shortage(entry, available(130, 200)) == ""
    assert restart_shortage(entry, available(130, 180)) == (
        "GPU memory: loading vpr again needs 200 MiB (engine 150 MiB, runs 50 MiB); free are 180 MiB: 20 MiB are"
        " missing"
    )
    both = restart_shortage(entry, available(120, 180))
    assert both.startswith("memory: ")
    assert "; GPU memory: " in both


def test_a_restart_of_an_engine_that_nobody_measured_is_reckoned_from_its_file_and_says_so() -> None:
    assert restart_shortage(engine("vpr", 100), available(300)) == ""
    assert "runs 100 MiB, estimated)" in restart_shortage(engine("vpr", 100), available(299))


def test_memory_that_is_back_within_the_tolerance_is_back() -> None:
    entry = engine("vpr", 100, 150, 50)
    assert unreturned_bytes(entry, available(1000), available(1200)) == 0
    assert unreturned_bytes(entry, available(1000), available(1200 - 64)) == 0
    assert unreturned_bytes(entry, available(1000), available(1200 - 64, less_bytes=1)) == 64 * MIB + 1
    assert unreturned_bytes(entry, available(1000), available(1190), tolerance_bytes=0) == 10 * MIB


def test_memory_that_others_took_meanwhile_is_not_the_engines() -> None:
    entry = engine("vpr", 100, 150, 50)
    assert unreturned_bytes(entry, available(1000), available(10)) == 200 * MIB
    assert unreturned_bytes(engine("small", 1, 10, 10), available(1000), available(10)) == 0
    assert unreturned_bytes(engine("unmeasured", 1), available(1000), available(10)) == 0


def test_a_gpus_memory_that_did_not_come_back_is_seen_though_the_hosts_did() -> None:
    entry = engine("vpr", 100, 10, 20, device_mb=(150, 50))
    assert unreturned_bytes(entry, available(1000, 600), available(1030, 700)) == 100 * MIB
    assert unreturned_bytes(entry, available(1000, 600), available(1030)) == 0


@given(lost=st.integers(-(2**40), 2**40), takes=st.integers(0, 2**20), tolerance_bytes=st.integers(0, 2**40))
def test_what_did_not_come_back_is_never_more_than_the_engine_took(lost: int, takes: int, tolerance_bytes: int) -> None:
    found = unreturned_bytes(
        engine("vpr", 1, takes),
        AvailableMemory(host_bytes=2**40),
        AvailableMemory(host_bytes=2**40 - lost),
        tolerance_bytes=tolerance_bytes,
    )
    assert 0 <= found <= takes * MIB
    assert found == 0 or found > tolerance_bytes
