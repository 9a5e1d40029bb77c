"""Whether the memory lasts for all engines, reckoned before the first one is loaded.

On a Jetson the engines, their activations and the file buffers share one memory with everything else. The engines load
one after the other; each has its file in memory until it is loaded, beside it what is read ahead of the next ones, and
keeps what it loaded and what its runs took. The highest of these sums is held against what is available.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from messages.errors import TakeoffRefusedError
from runtimes.available_memory import AvailableMemory
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.measurements import MemoryUse
from runtimes.store.read_ahead import READ_AHEAD_LIMIT_BYTES

MIB = 1024**2
UNRETURNED_TOLERANCE_BYTES = 64 * MIB
"""Available memory is the whole machine's, and other processes' too; an allocator keeps some of what is freed."""


class LoadStep(msgspec.Struct, frozen=True, kw_only=True):
    """One engine at its turn. Bytes; `peak_bytes` counts the engines before it, the device's part apart from it.

    `buffer_bytes` are engine files in memory: its own, which is being loaded, and what is read ahead of the next ones.
    `estimated` where the engine brings no measurement: its file's size is then counted as load and once more as run.
    """

    model: str
    buffer_bytes: int
    load_bytes: int
    run_bytes: int
    peak_bytes: int
    device_load_bytes: int
    device_run_bytes: int
    device_peak_bytes: int
    estimated: bool


class MemoryBudget(msgspec.Struct, frozen=True, kw_only=True):
    """All steps of a takeoff in the order of loading, and what they are held against."""

    steps: tuple[LoadStep, ...]
    available: AvailableMemory
    reserve_bytes: int

    @property
    def shortages(self) -> tuple[str, ...]:
        """Why the engines do not fit, in words with figures; empty where they fit."""
        found: list[str] = []
        host = max(self.steps, key=lambda step: step.peak_bytes, default=None)
        if host is not None and host.peak_bytes + self.reserve_bytes > self.available.host_bytes:
            missing = host.peak_bytes + self.reserve_bytes - self.available.host_bytes
            found.append(
                f"memory: while {host.model} loads the engines need {mib(host.peak_bytes)}, and"
                f" {mib(self.reserve_bytes)} are kept in reserve ([flight] memory_reserve_mb); available are"
                f" {mib(self.available.host_bytes)}: {mib(missing)} are missing"
            )
        device = max(self.steps, key=lambda step: step.device_peak_bytes, default=None)
        free_bytes = self.available.device_bytes
        if device is not None and free_bytes is not None and device.device_peak_bytes > free_bytes:
            found.append(
                f"GPU memory: with {device.model} the engines need {mib(device.device_peak_bytes)}; free are"
                f" {mib(free_bytes)}: {mib(device.device_peak_bytes - free_bytes)} are missing"
            )
        return tuple(found)


def plan_memory(
    entries: Sequence[EngineCacheEntry],
    available: AvailableMemory,
    *,
    reserve_mb: int,
    read_ahead_bytes: int = READ_AHEAD_LIMIT_BYTES,
    share_activation_memory: bool = False,
) -> MemoryBudget:
    """Pure. `entries` in the order of loading; `read_ahead_bytes` bounds the files that are read before their turn.

    An engine is measured with activation memory of its own. With `share_activation_memory` there is one block instead:
    it counts as load of each engine that needs a larger one, and the former block is there until that one is.
    """
    steps: list[LoadStep] = []
    resident = device_resident = block_bytes = 0
    on_device = available.device_bytes is not None
    left_bytes = sum(entry.engine_size_bytes for entry in entries)
    for entry in entries:
        use = entry.memory or _estimate(entry.engine_size_bytes, on_device=on_device)
        former_block_bytes = 0
        if share_activation_memory:
            own_bytes = _activation_bytes(entry)
            more_bytes = max(0, own_bytes - block_bytes)
            former_block_bytes = block_bytes if more_bytes else 0
            block_bytes += more_bytes
            use = _with_load(use, more_bytes - own_bytes, on_device=on_device)
        left_bytes -= entry.engine_size_bytes
        buffer_bytes = entry.engine_size_bytes + min(read_ahead_bytes, left_bytes)
        resident += use.load_bytes + use.run_bytes
        device_resident += use.device_load_bytes + use.device_run_bytes
        steps.append(
            LoadStep(
                model=entry.model,
                buffer_bytes=buffer_bytes,
                load_bytes=use.load_bytes,
                run_bytes=use.run_bytes,
                peak_bytes=buffer_bytes + resident + (0 if on_device else former_block_bytes),
                device_load_bytes=use.device_load_bytes,
                device_run_bytes=use.device_run_bytes,
                device_peak_bytes=device_resident + (former_block_bytes if on_device else 0),
                estimated=entry.memory is None,
            )
        )
    return MemoryBudget(steps=tuple(steps), available=available, reserve_bytes=reserve_mb * MIB)


def restart_shortage(entry: EngineCacheEntry, available: AvailableMemory) -> str:
    """Pure. Why one engine that is loaded again does not fit beside those that fly, with figures; empty where it does.

    Without a reserve: in the air what fits flies. A restart frees the old engine first, so memory that is missing here
    is memory that did not come back, or that somebody else has taken.
    """
    (step,) = plan_memory([entry], available, reserve_mb=0, read_ahead_bytes=0).steps
    estimated = ", estimated" if step.estimated else ""
    found: list[str] = []
    if step.peak_bytes > available.host_bytes:
        found.append(
            f"memory: loading {entry.model} again needs {mib(step.peak_bytes)} (file buffer {mib(step.buffer_bytes)},"
            f" engine {mib(step.load_bytes)}, runs {mib(step.run_bytes)}{estimated}); available are"
            f" {mib(available.host_bytes)}: {mib(step.peak_bytes - available.host_bytes)} are missing"
        )
    if available.device_bytes is not None and step.device_peak_bytes > available.device_bytes:
        found.append(
            f"GPU memory: loading {entry.model} again needs {mib(step.device_peak_bytes)} (engine"
            f" {mib(step.device_load_bytes)}, runs {mib(step.device_run_bytes)}{estimated}); free are"
            f" {mib(available.device_bytes)}: {mib(step.device_peak_bytes - available.device_bytes)} are missing"
        )
    return "; ".join(found)


def unreturned_bytes(
    entry: EngineCacheEntry,
    before_release: AvailableMemory,
    after_release: AvailableMemory,
    *,
    tolerance_bytes: int = UNRETURNED_TOLERANCE_BYTES,
) -> int:
    """Pure. How much of an engine's memory did not come back when it was released; 0 within the tolerance.

    0 of an engine that nobody measured. On a discrete GPU the larger of both memories' losses. What somebody else took
    or gave back at the same moment is in it, which the tolerance is for.
    """
    if entry.memory is None:
        return 0
    use = entry.memory
    returned = max(0, after_release.host_bytes - before_release.host_bytes)
    lost = [use.load_bytes + use.run_bytes - returned]
    if before_release.device_bytes is not None and after_release.device_bytes is not None:
        returned = max(0, after_release.device_bytes - before_release.device_bytes)
        lost.append(use.device_load_bytes + use.device_run_bytes - returned)
    worst = max(lost)
    return worst if worst > tolerance_bytes else 0


def refuse_if_short(budget: MemoryBudget) -> None:
    """Raises TakeoffRefusedError with what is missing, engine by engine, and what to do."""
    if not budget.shortages:
        return
    table = ", ".join(
        f"{step.model} {'estimated ' if step.estimated else ''}{mib(step.load_bytes + step.run_bytes)}"
        + (f" and {mib(device)} of the GPU" if (device := step.device_load_bytes + step.device_run_bytes) else "")
        + f" beside a file buffer of {mib(step.buffer_bytes)}"
        for step in budget.steps
    )
    raise TakeoffRefusedError(
        f"takeoff refused before anything was loaded: {'; '.join(budget.shortages)}. In the order of loading: {table}."
        " End other processes, fly fewer or smaller engines, or lower the reserve"
    )


def _estimate(file_bytes: int, *, on_device: bool) -> MemoryUse:
    """Of an engine that was compiled without being provisioned. On a discrete GPU it may be in both memories."""
    device_bytes = file_bytes if on_device else 0
    return MemoryUse(
        load_bytes=file_bytes, run_bytes=file_bytes, device_load_bytes=device_bytes, device_run_bytes=device_bytes
    )


def _activation_bytes(entry: EngineCacheEntry) -> int:
    return 0 if entry.build is None else max(entry.build.activation_bytes, default=0)


def _with_load(use: MemoryUse, more_bytes: int, *, on_device: bool) -> MemoryUse:
    if on_device:
        return msgspec.structs.replace(use, device_load_bytes=max(0, use.device_load_bytes + more_bytes))
    return msgspec.structs.replace(use, load_bytes=max(0, use.load_bytes + more_bytes))


def mib(amount_bytes: int) -> str:
    """An amount for a text. Rounded up: 0 MiB are missing only where nothing is."""
    return f"{-(-amount_bytes // MIB)} MiB"
