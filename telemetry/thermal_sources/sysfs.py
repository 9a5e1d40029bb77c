"""The board's own sensors: Linux thermal zones, cooling devices and the GPU's devfreq under /sys.

Zone numbers mean nothing (they differ between boards and boots), so everything is found by its type. What NVIDIA's
boards do to the unwary, and what is done here:

- The cv zones of an Orin answer EAGAIN while their engines are off, for as long as they are off: that one sensor is
  then not read, the others are. `os.read` is used because `open().read()` turns EAGAIN into a TypeError.
- `pwm-fan` and `hot-surface-alert` are cooling devices too, and active on a healthy board; they slow nothing down.
- Over-current events (hwmon `soctherm_oc`) are electrical, and `max_freq` of devfreq follows power modes: neither is
  evidence of heat, and neither is read.
- `thermal_trip_event_block` blocks until the next trip. It is never opened.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

from messages import TelemetryUnavailableError
from messages.thermal import COOLING_DEVICES_MAX
from telemetry.thermal_sources.source import ThermalReading

CPU_ZONES = ("cpu", "x86_pkg_temp")
GPU_ZONES = ("gpu",)
GPU_NAMES = ("gpu", "ga10b", "gv11b", "gp10b")
"""Device tree names of Tegra's GPUs: JetPack 6, Orin, Xavier, TX2."""

_GPU_DEVFREQ_FALLBACKS = (
    "class/devfreq/17000000.gpu",
    "class/devfreq/17000000.ga10b",
    "devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu",
    "devices/platform/17000000.gpu/devfreq_dev",
    "devices/platform/17000000.ga10b/devfreq/17000000.ga10b",
)
"""Where Orin's GPU was seen under JetPack 5 and 6 when the class link or the device tree's name is missing."""

_PLAUSIBLE_C = (-60.0, 200.0)
"""Outside it is no measurement: an offline Tegra sensor says -256 °C, the kernel's invalid value is -274 °C."""
_VALUE_MAX_BYTES = 256
_BINDINGS_MAX = 64
_TRIPS_MAX = 16


class _Zone(NamedTuple):
    name: str
    path: Path
    trip_c: float


class _Layout(NamedTuple):
    """What the board has. Read again only when devices come or go."""

    entries: frozenset[str]
    zones: tuple[_Zone, ...]
    throttles: tuple[tuple[str, Path], ...]
    gpu_clock: Path | None


class SysfsThermalSource:
    """Reads the board under `root`. Needs no privileges and never writes.

    Raises TelemetryUnavailableError where there is neither a CPU or GPU zone nor a cooling device to read.
    """

    def __init__(self, root: Path = Path("/sys")) -> None:
        self.name = f"sysfs at {root}"
        self._root = root
        types = [_text(entry / "type") or "" for entry in _listed(root / "class" / "thermal")]
        if not any(_zone_name(kind) in CPU_ZONES + GPU_ZONES or slows_the_board(kind) for kind in types):
            raise TelemetryUnavailableError(
                f"{root}/class/thermal: expected a CPU or GPU zone or a cooling device, found "
                f"{', '.join(sorted(filter(None, types))) or 'nothing'}; this machine has no thermal sensors for c7"
            )
        self._layout: _Layout | None = None

    def read(self) -> ThermalReading:
        layout = self._current_layout()
        temps = {zone: _celsius(zone.path / "temp") for zone in layout.zones}
        states = {name: _integer(path / "cur_state") for name, path in layout.throttles}
        cpu_temp_c = _hottest(temps, CPU_ZONES)
        gpu_temp_c = _hottest(temps, GPU_ZONES)
        if math.isnan(cpu_temp_c) and math.isnan(gpu_temp_c) and not any(s is not None for s in states.values()):
            raise TelemetryUnavailableError(f"{self.name}: no zone and no cooling device could be read")
        if states and all(state is None for state in states.values()):
            raise TelemetryUnavailableError(
                f"{self.name}: none of the cooling devices {', '.join(sorted(states))} could be read, "
                "so nothing is known about throttling"
            )
        clock_hz = _integer(layout.gpu_clock) if layout.gpu_clock is not None else None
        margins = (zone.trip_c - temp for zone, temp in temps.items() if temp is not None)
        return ThermalReading(
            cpu_temp_c=cpu_temp_c,
            gpu_temp_c=gpu_temp_c,
            gpu_clock_mhz=max(0, clock_hz or 0) // 1_000_000,
            throttled_by=tuple(sorted(name for name, state in states.items() if state))[:COOLING_DEVICES_MAX],
            headroom_c=min((margin for margin in margins if not math.isnan(margin)), default=math.nan),
        )

    def _current_layout(self) -> _Layout:
        thermal = _listed(self._root / "class" / "thermal")
        devfreq = _listed(self._root / "class" / "devfreq")
        entries = frozenset(str(entry) for entry in (*thermal, *devfreq))
        if self._layout is None or self._layout.entries != entries:  # a driver that loads late adds its devices
            kinds = [(_text(entry / "type") or "", entry) for entry in thermal]
            self._layout = _Layout(
                entries=entries,
                zones=tuple(
                    _Zone(_zone_name(kind), entry, _throttle_trip_c(entry))
                    for kind, entry in kinds
                    if entry.name.startswith("thermal_zone")
                ),
                throttles=tuple(
                    (kind[:128], entry)
                    for kind, entry in kinds
                    if entry.name.startswith("cooling_device") and slows_the_board(kind)
                ),
                gpu_clock=_gpu_clock(self._root, devfreq),
            )
        return self._layout


def slows_the_board(cooling_type: str) -> bool:
    """Whether a cooling device of this type, while active, means that the board runs slower because it is hot."""
    kind = cooling_type.casefold()
    if kind.startswith(("cpufreq-", "thermal-cpufreq-", "thermal-devfreq-")) or kind.endswith("-throttle-alert"):
        return True
    return kind.startswith("devfreq-") and any(gpu in kind for gpu in GPU_NAMES)


def _zone_name(zone_type: str) -> str:
    """`CPU-therm` of JetPack 5 and `cpu-thermal` of JetPack 6 are both `cpu`."""
    return zone_type.partition("-")[0].casefold()


def _hottest(temps: dict[_Zone, float | None], names: tuple[str, ...]) -> float:
    return max((temp for zone, temp in temps.items() if zone.name in names and temp is not None), default=math.nan)


def _throttle_trip_c(zone: Path) -> float:
    """The lowest passive trip of a zone that some slowing device is bound to; NaN where there is none.

    The binding decides: an Orin's 70 °C passive trip moves nothing but `hot-surface-alert`.
    """
    bound: set[int] = set()
    for index in range(_BINDINGS_MAX):
        kind = _text(zone / f"cdev{index}" / "type")
        trip = _integer(zone / f"cdev{index}_trip_point")
        if kind is not None and trip is not None and slows_the_board(kind):
            bound.add(trip)
    trips = (
        _celsius(zone / f"trip_point_{trip}_temp")
        for trip in bound
        if 0 <= trip < _TRIPS_MAX and _text(zone / f"trip_point_{trip}_type") == "passive"
    )
    return min((trip for trip in trips if trip is not None), default=math.nan)


def _gpu_clock(root: Path, devfreq: list[Path]) -> Path | None:
    named = [device for device in devfreq if _text(device / "device" / "of_node" / "name") in GPU_NAMES]
    for device in (*named, *(root / fallback for fallback in _GPU_DEVFREQ_FALLBACKS)):
        if (device / "cur_freq").exists():
            return device / "cur_freq"
    return None


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder / name for name in os.listdir(folder))  # noqa: PTH208 (a list, or nothing at all)
    except OSError:
        return []


def _celsius(path: Path) -> float | None:
    millidegrees = _integer(path)
    if millidegrees is None or not _PLAUSIBLE_C[0] <= millidegrees / 1000 <= _PLAUSIBLE_C[1]:
        return None
    return millidegrees / 1000


def _integer(path: Path) -> int | None:
    text = _text(path)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    """The value of one attribute, or None where it has no answer now: absent, switched off (EAGAIN), not readable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = os.read(descriptor, _VALUE_MAX_BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return data.decode("utf-8", "replace").strip("\0\n ") or None
