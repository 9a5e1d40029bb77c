"""The power mode of a Jetson, read from recorded file trees; its clocks are the mode's, whatever the heat says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from messages import RuntimeNotAvailableError
from runtimes.measurements import PowerMode
from runtimes.power_mode import detect_power_mode

RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan 8 2025\n"
CATALOGUE = """\
# nvpmodel configuration
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online

< PARAM TYPE=CLOCK NAME=CPU_A78_0 >
FREQ_TABLE /sys/devices/system/cpu/cpu0/cpufreq/scaling_available_frequencies
MAX_FREQ /sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq
MAX_FREQ_KNEXT /sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq

< PARAM TYPE=CLOCK NAME=GPU >
MAX_FREQ /sys/devices/platform/17000000.gpu/devfreq_dev/max_freq

# mode 0 is not the fastest
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
CPU_A78_0 MIN_FREQ 729600
CPU_A78_0 MAX_FREQ 1497600
CPU_A78_4 MAX_FREQ 1344000
GPU MIN_FREQ 0
GPU MAX_FREQ 612000000
GPU_POWER_CONTROL_DISABLE GPU_PWR_CNTL_DIS auto
EMC MAX_FREQ 2133000000

< POWER_MODEL ID=2 NAME=MAXN_SUPER >
CPU_A78_0 MAX_FREQ -1
CPU_A78_4 MAX_FREQ -1
GPU MAX_FREQ -1
EMC MAX_FREQ -1

< PM_CONFIG DEFAULT=1 >
GPU MAX_FREQ 1
"""


def nano(root: Path, status: str | None = "pmode:0002\n", catalogue: str | None = CATALOGUE) -> Path:
    """An Orin Nano that is hot: `scaling_max_freq` and `max_freq` lie below what its mode allows."""
    policies = Path("sys/devices/system/cpu/cpufreq")
    gpu = Path("sys/class/devfreq/17000000.gpu")
    files = {
        Path("etc/nv_tegra_release"): RELEASE,
        policies / "policy0/cpuinfo_max_freq": "1728000\n",
        policies / "policy0/scaling_max_freq": "729600\n",
        policies / "policy4/cpuinfo_max_freq": "1728000\n",
        policies / "policy4/scaling_max_freq": "729600\n",
        gpu / "available_frequencies": "306000000 408000000 612000000 918000000 1020000000\n",
        gpu / "max_freq": "306000000\n",
        Path("sys/class/devfreq/15480000.nvdec/available_frequencies"): "1203200000\n",
    }
    if status is not None:
        files[Path("var/lib/nvpmodel/status")] = status
    if catalogue is not None:
        files[Path("etc/nvpmodel.conf")] = catalogue
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_machine_that_is_no_jetson_has_no_power_mode(tmp_path: Path) -> None:
    assert detect_power_mode(tmp_path) is None


def test_a_jetson_is_known_by_its_device_tree_too(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/compatible").write_text("nvidia,p3767-0005\0nvidia,tegra234\0")
    with pytest.raises(RuntimeNotAvailableError, match="nvpmodel/status"):
        detect_power_mode(tmp_path)


@pytest.mark.parametrize(
    ("status", "mode"),
    [
        ("pmode:0002\n", PowerMode(name="MAXN_SUPER", cpu_max_mhz=1728, gpu_max_mhz=1020)),
        ("pmode:0000\n", PowerMode(name="15W", cpu_max_mhz=1497, gpu_max_mhz=612)),
        ("pmode:0000 fmode:fan_mode_quiet\n", PowerMode(name="15W", cpu_max_mhz=1497, gpu_max_mhz=612)),
        ("pmode:0007\n", PowerMode(name="mode 7", cpu_max_mhz=0, gpu_max_mhz=0)),
    ],
)
def test_mode_and_clocks_are_what_status_and_catalogue_say(tmp_path: Path, status: str, mode: PowerMode) -> None:
    assert detect_power_mode(nano(tmp_path, status)) == mode


def test_heat_changes_no_power_mode(tmp_path: Path) -> None:
    hot = detect_power_mode(nano(tmp_path))
    (tmp_path / "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq").write_text("1728000\n")
    (tmp_path / "sys/class/devfreq/17000000.gpu/max_freq").write_text("1020000000\n")
    assert detect_power_mode(tmp_path) == hot


def test_a_mode_that_was_edited_under_its_name_has_other_clocks(tmp_path: Path) -> None:
    edited = CATALOGUE.replace("GPU MAX_FREQ 612000000", "GPU MAX_FREQ 510000000")
    assert detect_power_mode(nano(tmp_path, "pmode:0000", edited)) == PowerMode(
        name="15W", cpu_max_mhz=1497, gpu_max_mhz=510
    )


def test_without_a_catalogue_the_mode_has_its_number(tmp_path: Path) -> None:
    assert detect_power_mode(nano(tmp_path, catalogue=None)) == PowerMode(name="mode 2", cpu_max_mhz=0, gpu_max_mhz=0)


def test_a_catalogue_behind_a_link_is_read(tmp_path: Path) -> None:
    nano(tmp_path)
    target = tmp_path / "etc/nvpmodel/nvpmodel_p3767_0003_super.conf"
    target.parent.mkdir()
    (tmp_path / "etc/nvpmodel.conf").rename(target)
    (tmp_path / "etc/nvpmodel.conf").symlink_to(target)
    mode = detect_power_mode(tmp_path)
    assert mode is not None
    assert mode.name == "MAXN_SUPER"


def test_hardware_that_hides_its_clocks_leaves_them_0(tmp_path: Path) -> None:
    nano(tmp_path)
    (tmp_path / "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq").write_text("nonsense")
    (tmp_path / "sys/devices/system/cpu/cpufreq/policy4/cpuinfo_max_freq").unlink()
    (tmp_path / "sys/class/devfreq/17000000.gpu/available_frequencies").unlink()
    assert detect_power_mode(tmp_path) == PowerMode(name="MAXN_SUPER", cpu_max_mhz=0, gpu_max_mhz=0)


@pytest.mark.parametrize("status", [None, "", "pmode:", "mode 2", "pmode:12345678901234567890"])
def test_a_jetson_that_does_not_say_its_mode_is_refused_by_the_files_name(tmp_path: Path, status: str | None) -> None:
    with pytest.raises(RuntimeNotAvailableError, match=r"nvpmodel/status: expected .*pmode:0002.*mount this file"):
        detect_power_mode(nano(tmp_path, status))


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    nano(tmp_path, status=None)
    (tmp_path / "var/lib/nvpmodel").mkdir(parents=True)
    os.mkfifo(tmp_path / "var/lib/nvpmodel/status")
    with pytest.raises(RuntimeNotAvailableError, match="nvpmodel/status"):
        detect_power_mode(tmp_path)


def test_a_name_of_any_length_fits_the_metadata(tmp_path: Path) -> None:
    mode = detect_power_mode(nano(tmp_path, catalogue=CATALOGUE.replace("MAXN_SUPER", "M" * 500)))
    assert mode is not None
    assert mode.name == "M" * 64
