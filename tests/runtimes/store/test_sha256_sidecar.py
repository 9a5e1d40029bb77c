"""Sidecars and atomic files: one way to write given digests, and a file that is whole or as it was."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import EngineDeserializeError
from runtimes.store.durable_files import write_atomically, write_files_atomically
from runtimes.store.sha256_sidecar import (
    Sha256Sidecar,
    read_with_sidecar,
    sha256_of,
    write_with_sidecar,
)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,40}", fullmatch=True)
CONTENTS = st.dictionaries(NAMES, st.binary(max_size=64), min_size=1, max_size=4)


@given(CONTENTS)
def test_parse_is_the_inverse_of_format(contents: dict[str, bytes]) -> None:
    sidecar = Sha256Sidecar.over(contents)
    assert Sha256Sidecar.parse(sidecar.format()) == sidecar


@given(CONTENTS, st.data())
def test_no_flipped_bit_of_a_sidecar_reads_as_the_same_digests(contents: dict[str, bytes], data: st.DataObject) -> None:
    sidecar = Sha256Sidecar.over(contents)
    raw = bytearray(sidecar.format())
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(ValueError):
        assert Sha256Sidecar.parse(bytes(raw)) != sidecar


@given(CONTENTS, st.data())
def test_a_truncated_sidecar_never_lists_everything(contents: dict[str, bytes], data: st.DataObject) -> None:
    raw = Sha256Sidecar.over(contents).format()
    kept = data.draw(st.integers(0, len(raw) - 1))
    with contextlib.suppress(ValueError):
        assert Sha256Sidecar.parse(raw[:kept]).digests.keys() < contents.keys()


@given(st.binary(max_size=300))
def test_any_bytes_are_a_sidecar_or_refused(raw: bytes) -> None:
    try:
        sidecar = Sha256Sidecar.parse(raw)
    except ValueError:
        return
    assert sidecar.format() == raw


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="coreutils are not installed")
def test_the_coreutils_check_a_sidecar_of_ours(tmp_path: Path) -> None:
    write_with_sidecar(tmp_path / "map.bin", b"tiles")
    checked = subprocess.run(  # noqa: S603
        [str(shutil.which("sha256sum")), "--check", "map.bin.sha256"], cwd=tmp_path, check=False, capture_output=True
    )
    assert checked.stdout == b"map.bin: OK\n"


def test_a_file_is_read_back_against_its_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "map.bin"
    write_with_sidecar(path, b"tiles")
    assert read_with_sidecar(path, max_bytes=100) == b"tiles"


def test_an_altered_file_is_refused_by_name_with_both_hashes(tmp_path: Path) -> None:
    path = tmp_path / "map.bin"
    write_with_sidecar(path, b"tiles")
    path.write_bytes(b"tilez")
    with pytest.raises(EngineDeserializeError) as refused:
        read_with_sidecar(path, max_bytes=100)
    assert str(path) in str(refused.value)
    assert sha256_of(b"tiles") in str(refused.value)
    assert sha256_of(b"tilez") in str(refused.value)


def test_a_file_without_its_sidecar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "map.bin").write_bytes(b"tiles")
    with pytest.raises(EngineDeserializeError, match=r"map\.bin\.sha256"):
        read_with_sidecar(tmp_path / "map.bin", max_bytes=100)


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "a\nb",
        "",
        "a\\b",
        ".",
        "..",
        "a" * 256,
        "é" * 128,
        "a\x1b[2K",
        "a\x9b2K",
        "a\u202eb",
        "a\u2028b",
        "\udc80",
    ],
)
def test_a_name_that_no_file_has_or_that_hides_what_it_is_is_neither_written_nor_read(name: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        Sha256Sidecar({name: "0" * 64}).format()
    with pytest.raises(ValueError, match=r"expected lines|can't decode"):
        Sha256Sidecar.parse(f"{'0' * 64}  {name}\n".encode(errors="surrogateescape"))


@pytest.mark.parametrize("name", ["...", ".hidden", "a" * 255, "é" * 127, "two words", "[bold]"])
def test_every_other_name_is_written_and_read(name: str) -> None:
    sidecar = Sha256Sidecar({name: "0" * 64})
    assert Sha256Sidecar.parse(sidecar.format()) == sidecar


def test_a_sidecar_over_nothing_is_neither_written_nor_read() -> None:
    with pytest.raises(ValueError, match="expected a sidecar over one file or more, got none"):
        Sha256Sidecar({}).format()
    with pytest.raises(ValueError, match="it is cut off or empty"):
        Sha256Sidecar.parse(b"")


def test_writing_replaces_the_former_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["journal"]


def test_a_symbolic_link_in_the_way_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"kept")
    (tmp_path / "journal").symlink_to(victim)
    write_atomically(tmp_path / "journal", b"new")
    assert victim.read_bytes() == b"kept"
    assert not (tmp_path / "journal").is_symlink()


def test_the_kernels_limit_on_file_size_leaves_the_former_content_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    path.write_bytes(b"former")
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from runtimes.store.durable_files import write_files_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: write_files_atomically(Path(sys.argv[1]), {'small': b'x', 'engine': b'y' * 100_000})\n"
        "except OSError as error: print(error.errno)\n"
    )
    printed = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        check=True,
        preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    assert int(printed.stdout) == errno.EFBIG
    assert [each.name for each in tmp_path.iterdir()] == ["engine"]
    assert path.read_bytes() == b"former"


def test_a_failing_fsync_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_files_atomically(tmp_path, {"a": b"1", "b": b"2"})
    assert list(tmp_path.iterdir()) == []
