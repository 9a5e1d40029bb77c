"""How much memory there is for engines now: what the kernel can give, what this process's cgroup allows, and the GPU's.

A service with MemoryMax, or a container with a limit, is killed at that limit however much the machine has left.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple

import msgspec

from messages.errors import RuntimeNotAvailableError
from runtimes.config import C7InferenceConfig
from runtimes.gpu_memory import read_gpu_memory
from runtimes.host import is_jetson

MEMINFO = Path("proc/meminfo")
CGROUPS = Path("proc/self/cgroup")
CGROUP_ROOT = Path("sys/fs/cgroup")
_FILE_MAX_BYTES = 64 * 1024


class AvailableMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What can be had now. `device_bytes` is None where the engines use no memory but the machine's own."""

    host_bytes: int
    device_bytes: int | None = None


class _Names(NamedTuple):
    """Of one version of cgroups: where its tree begins, and its files."""

    root: Path
    limit: str
    usage: str
    cache: str


_V1 = _Names(CGROUP_ROOT / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Names(CGROUP_ROOT, "memory.max", "memory.current", "inactive_file")


def read_available_memory(config: C7InferenceConfig, root: Path = Path("/")) -> AvailableMemory:
    """What is left for this process on the machine, and on the discrete GPU where the engines run on one.

    What this process has freed counts too: its allocator gives it back first, which takes some milliseconds. Raises
    RuntimeNotAvailableError naming what cannot be read.
    """
    _give_back_freed()
    has_own_memory = config.uses_gpu and not is_jetson(root)
    return AvailableMemory(
        host_bytes=min([_machine_bytes(root), *_cgroup_rooms(root)]),
        device_bytes=read_gpu_memory(config.device_index).free_bytes if has_own_memory else None,
    )


def _give_back_freed() -> None:
    """glibc keeps freed memory for the next request: 58 MB after a matcher of 24 MB was loaded and released."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # another libc keeps less
        trim(0)


def _machine_bytes(root: Path) -> int:
    path = root / MEMINFO
    try:
        text = _read(path)
    except OSError as error:
        raise RuntimeNotAvailableError(f"{path}: available memory cannot be read: {error.strerror}") from error
    amount, _, unit = _fields(text, ":").get("MemAvailable", "").partition(" ")
    if not (amount.isascii() and amount.isdigit()) or unit != "kB":
        raise RuntimeNotAvailableError(f"{path}: expected a line 'MemAvailable: N kB', found none")
    return int(amount) * 1024


def _cgroup_rooms(root: Path) -> list[int]:
    """What this process's cgroup and those above it leave; empty without a limit, or without cgroups at all."""
    try:
        lines = _read(root / CGROUPS).splitlines()
    except OSError:
        return []
    rooms = []
    for line in lines:
        controllers, _, place = line.partition(":")[2].partition(":")
        names = _V2 if not controllers else _V1 if "memory" in controllers.split(",") else None
        if names is None:
            continue
        group = Path(place.lstrip("/"))
        rooms += [_room(root / names.root / each, names) for each in (group, *group.parents)]
    return [room for room in rooms if room is not None]


def _room(folder: Path, names: _Names) -> int | None:
    """The limit less what is used; cached files that nobody uses are given back before the limit kills."""
    try:
        limit, usage = _read(folder / names.limit).strip(), _read(folder / names.usage).strip()
        cache = _fields(_read(folder / "memory.stat"), " ").get(names.cache, "0")
    except OSError:
        return None  # the uppermost group has no limit, and a container does not see the groups above its own
    if not (limit.isdigit() and usage.isdigit() and cache.isdigit()):
        return None  # "max"
    return max(0, int(limit) - int(usage) + int(cache))


def _fields(text: str, separator: str) -> dict[str, str]:
    """The lines of a file as name and value."""
    parts = (line.partition(separator) for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in parts}


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_FILE_MAX_BYTES).decode("ascii", "replace")
