"""Given inputs of a model: known by their content, read one at a time, and refused as soon as anything moves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import ConfigError
from runtimes import samples as samples_module
from runtimes.npz_file import encode_npz
from runtimes.samples import Samples


def write_sample(path: Path, value: float) -> Path:
    path.write_bytes(encode_npz({"image": np.full((1, 2), value, np.float32)}))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    for name, value in (("b.npz", 2), ("a.npz", 1), ("c.npz", 3)):
        write_sample(folder / name, value)
    (folder / "README.txt").write_text("forty frames of the second flight")
    return folder


def test_a_folder_gives_its_npz_files_in_the_order_of_their_names(folder: Path) -> None:
    samples = Samples.open(folder)
    assert samples.count == 3
    assert [float(arrays["image"][0, 0]) for arrays in samples] == [1, 2, 3]
    assert [float(arrays["image"][0, 0]) for arrays in samples] == [1, 2, 3]


def test_one_file_is_a_set_of_one(folder: Path) -> None:
    samples = Samples.open(folder / "b.npz")
    assert samples.count == 1
    assert [arrays["image"].tolist() for arrays in samples] == [[[2, 2]]]


def test_the_same_files_elsewhere_are_the_same_set(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    for path in folder.glob("*.npz"):
        (copied / path.name).write_bytes(path.read_bytes())
    assert Samples.open(copied).sha256 == Samples.open(folder).sha256


CHANGES: dict[str, Callable[[Path], object]] = {
    "a value": lambda folder: write_sample(folder / "b.npz", 2.5),
    "one bit": lambda folder: flip_last_bit(folder / "b.npz"),
    "a name": lambda folder: (folder / "b.npz").rename(folder / "d.npz"),
    "two names": lambda folder: swap(folder / "a.npz", folder / "b.npz"),
    "one more": lambda folder: write_sample(folder / "d.npz", 4),
    "one fewer": lambda folder: (folder / "c.npz").unlink(),
}


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def swap(one: Path, other: Path) -> None:
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])


@pytest.mark.parametrize("change", CHANGES)
def test_another_content_is_another_set(folder: Path, change: str) -> None:
    before = Samples.open(folder).sha256
    CHANGES[change](folder)
    assert Samples.open(folder).sha256 != before


@pytest.mark.parametrize("change", CHANGES)
def test_a_set_that_changes_while_it_is_in_use_is_refused_by_name(folder: Path, change: str) -> None:
    samples = Samples.open(folder)
    CHANGES[change](folder)
    with pytest.raises(ConfigError, match=r"samples/?[abcd]?(\.npz)?: "):
        list(samples)


def test_what_was_read_before_a_change_is_what_was_hashed(folder: Path) -> None:
    reading = iter(Samples.open(folder))
    assert next(reading)["image"][0, 0] == 1
    write_sample(folder / "b.npz", 9)
    with pytest.raises(ConfigError, match=r"b\.npz: changed while the samples were in use: expected .* found"):
        next(reading)


def test_a_folder_that_changes_while_it_is_opened_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = samples_module._described

    def describe_and_add(path: Path) -> samples_module.SampleFile:
        write_sample(folder / "z.npz", 9)
        return described(path)

    monkeypatch.setattr(samples_module, "_described", describe_and_add)
    with pytest.raises(ConfigError, match="the folder changed while it was read"):
        Samples.open(folder)


def empty_folder(folder: Path) -> None:
    for path in folder.glob("*.npz"):
        path.unlink()


def linked(folder: Path) -> None:
    (folder / "d.npz").symlink_to(folder / "a.npz")


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no npz": (empty_folder, r"samples: expected \.npz files in the folder, found none"),
    "empty file": (lambda folder: (folder / "b.npz").write_bytes(b""), r"b\.npz: the sample is empty"),
    "link": (linked, r"d\.npz: .*found a symbolic link"),
    "pipe": (lambda folder: os.mkfifo(folder / "d.npz"), r"d\.npz: .*found a named pipe"),
    "folder": (lambda folder: (folder / "d.npz").mkdir(), r"d\.npz: .*found a folder"),
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_a_folder_without_plain_npz_files_is_refused_with_the_name(folder: Path, fault: str) -> None:
    spoil, expected = UNUSABLE[fault]
    spoil(folder)
    with pytest.raises(ConfigError, match=expected):
        Samples.open(folder)


def test_a_place_that_is_missing_or_no_npz_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Samples.open(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"README\.txt: expected an \.npz file, found '\.txt'"):
        Samples.open(folder / "README.txt")


def test_a_link_to_a_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ConfigError, match=r"link: .*a symbolic link"):
        Samples.open(tmp_path / "link")


def test_a_file_that_is_no_npz_is_refused_when_it_is_read(folder: Path) -> None:
    (folder / "b.npz").write_bytes(b"not an archive")
    with pytest.raises(ConfigError, match=r"b\.npz: expected an \.npz file as numpy\.savez writes it"):
        list(Samples.open(folder))


def test_too_many_and_too_large_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "SAMPLE_MAX_BYTES", 100)
    with pytest.raises(ConfigError, match="expected at most 100 bytes"):
        Samples.open(folder)
    monkeypatch.setattr(samples_module, "SAMPLES_MAX", 2)
    with pytest.raises(ConfigError, match=r"expected at most 2 \.npz files, found more"):
        Samples.open(folder)


def test_a_sample_that_unpacks_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", image=np.zeros(1_000_000))
    samples = Samples.open(tmp_path / "bomb.npz")
    monkeypatch.setattr(samples_module, "SAMPLE_MAX_BYTES", 1_000_000)
    with pytest.raises(ConfigError, match=r"at most 64 arrays of 1000000 bytes together, found 1 of 8000128"):
        list(samples)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_an_npz_file_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes, zip_: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "any.npz"
    path.write_bytes(encode_npz({"image": np.zeros(3)})[:200] + raw if zip_ else b"x" + raw)
    with pytest.raises(ConfigError, match=r"any\.npz"):
        list(Samples.open(path))
