"""Which power mode a Jetson is in and which clocks that mode allows: an engine flies in the mode it was timed in.

The clocks are the mode's limits, not the present ones: `scaling_max_freq` and devfreq's `max_freq` drop while the board
is hot, and a hot board is in no other mode. nvpmodel's catalogue says the limits; where it says -1 (no limit) they are
the hardware's own, `cpuinfo_max_freq` and the highest of `available_frequencies`, which no cooling device moves.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from messages.errors import RuntimeNotAvailableError
from runtimes.host import is_jetson
from runtimes.measurements import PowerMode

STATUS = Path("var/lib/nvpmodel/status")
"""What nvpmodel writes whenever it sets a mode; every user may read it."""
CATALOGUE = Path("etc/nvpmodel.conf")
CPU_POLICIES = Path("sys/devices/system/cpu/cpufreq")
DEVFREQ = Path("sys/class/devfreq")
GPU_DEVICES = ("gpu", "ga10b", "gv11b", "gp10b")
"""How the devfreq device of a Tegra's GPU ends (`17000000.ga10b`): JetPack 6, Orin, Xavier, TX2."""

_STATUS_MODE = re.compile(r"pmode:(\d{1,6})\b")
_HEADING = re.compile(r"<\s*(?:POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)|[^>]*?)\s*>")
_CLOCK = re.compile(r"(CPU_\w+|GPU)\s+MAX_FREQ\s+(-?\d+)")
_STATUS_MAX_BYTES = 4096
_CATALOGUE_MAX_BYTES = 256 * 1024
_NAME_MAX_CHARS = 64


def detect_power_mode(root: Path = Path("/")) -> PowerMode | None:
    """The mode of the Jetson whose file tree is `root`; None where that machine is no Jetson.

    A mode that the catalogue does not hold has its number for a name, and clocks 0. Raises RuntimeNotAvailableError on
    a Jetson whose status file is missing or names no mode.
    """
    if not is_jetson(root):
        return None
    status = _read(root / STATUS, _STATUS_MAX_BYTES)
    match = _STATUS_MODE.search(status or "")
    if match is None:
        found = "nothing readable" if status is None else repr(status[:80])
        raise RuntimeNotAvailableError(
            f"{root / STATUS}: expected the power mode of this Jetson as 'pmode:0002', found {found}; set one with"
            " `sudo nvpmodel -m N`; in a container, mount this file and /etc/nvpmodel.conf from the board"
        )
    number = int(match[1])
    catalogue = _read(root / CATALOGUE, _CATALOGUE_MAX_BYTES) or ""
    name, cpu_khz, gpu_hz = _mode_of_catalogue(catalogue, number)
    return PowerMode(
        name=name,
        cpu_max_mhz=_highest(cpu_khz, _cpu_hardware_khz(root)) // 1_000,
        gpu_max_mhz=_highest(gpu_hz, _gpu_hardware_hz(root)) // 1_000_000,
    )


def _mode_of_catalogue(catalogue: str, number: int) -> tuple[str, list[int], list[int]]:
    """Name, limits of the CPU clusters in kHz and of the GPU in Hz."""
    name = f"mode {number}"
    cpu_khz: list[int] = []
    gpu_hz: list[int] = []
    inside = False
    for line in catalogue.splitlines():
        heading = _HEADING.match(line.strip())
        if heading is not None:
            inside = heading[1] is not None and int(heading[1]) == number
            if inside:
                name, cpu_khz, gpu_hz = heading[2][:_NAME_MAX_CHARS], [], []
            continue
        clock = _CLOCK.match(line.strip())
        if inside and clock is not None:
            (gpu_hz if clock[1] == "GPU" else cpu_khz).append(int(clock[2]))
    return name, cpu_khz, gpu_hz


def _highest(limits: list[int], hardware: int) -> int:
    """The highest limit; the hardware's own where one says that there is none; 0 where nothing is said."""
    if any(limit <= 0 for limit in limits):
        return hardware
    return max(limits, default=0)


def _cpu_hardware_khz(root: Path) -> int:
    return max((_number(policy / "cpuinfo_max_freq") for policy in _listed(root / CPU_POLICIES)), default=0)


def _gpu_hardware_hz(root: Path) -> int:
    gpus = [device for device in _listed(root / DEVFREQ) if device.name.rpartition(".")[2] in GPU_DEVICES]
    texts = (_read(device / "available_frequencies", _STATUS_MAX_BYTES) or "" for device in gpus)
    return max((int(word) for text in texts for word in text.split() if word.isascii() and word.isdigit()), default=0)


def _number(path: Path) -> int:
    text = (_read(path, _STATUS_MAX_BYTES) or "").strip()
    return int(text) if text.isascii() and text.isdigit() else 0


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _read(path: Path, max_bytes: int) -> str | None:
    """The first bytes of a small file; None where it cannot be read. Never waits: a pipe in its place is empty."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(descriptor, max_bytes).decode("utf-8", "replace").strip("\0\n ")
        finally:
            os.close(descriptor)
    except OSError:
        return None
