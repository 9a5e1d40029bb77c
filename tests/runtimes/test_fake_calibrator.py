"""INT8 on the fake runtime: a former calibration spares the work where it can be trusted, and stops the build else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from messages import CalibrationCacheError, EngineBuildError, TensorSpec
from runtimes import fake_calibrator
from runtimes.calibration.cache import decode_calibration
from runtimes.fake_runtime import FakeRuntime
from runtimes.fake_steps import computes
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry
from runtimes.npz_file import encode_npz
from runtimes.samples import Samples
from runtimes.store.engine_artifact import calibration_path, read_calibration, read_entry, verify_artifact
from runtimes.store.sha256_sidecar import sha256_of

PROFILE = (("image", (1, 2), (2, 2), (4, 2)),)
INPUTS = {"vpr": {"image": TensorSpec((-1, 2), "float32")}}


def write_batch(path: Path, *values: float) -> None:
    path.write_bytes(encode_npz({"image": np.array([values, values], np.float32)}))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "vpr.onnx"
    source.write_bytes(b"weights")
    return source


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    write_batch(dataset / "0.npz", 1, 2)
    write_batch(dataset / "1.npz", -12.7, 3)
    return dataset


@pytest.fixture
def int8(dataset: Path) -> BuildConfig:
    return BuildConfig(precision="int8", calibration_dataset=dataset, optimization_profiles=PROFILE)


def new_fake(**options: object) -> FakeRuntime:
    return FakeRuntime({"vpr": computes(lambda inputs: inputs)}, inputs=INPUTS, **options)  # type: ignore[arg-type]


def test_an_int8_engine_carries_the_calibration_that_it_was_made_with(source: Path, int8: BuildConfig) -> None:
    fake = new_fake()
    entry = fake.compile_engine(source, int8)
    assert fake.calibration_batches("vpr") == 2
    assert int8.calibration_dataset is not None
    assert entry.dataset_sha256 == Samples.open(int8.calibration_dataset).sha256
    verify_artifact(entry)
    assert read_entry(entry.path) == entry
    data = read_calibration(entry)
    assert data is not None
    assert entry.calibration_sha256 == sha256_of(data)
    cache = decode_calibration(data)
    assert (cache.binding.source_sha256, cache.binding.batches) == (entry.source_sha256, 2)
    assert cache.table.scales == {"image": pytest.approx(0.1)}
    np.testing.assert_array_equal(
        np.asarray(fake.infer(fake.deserialize_engine(entry), {"image": np.ones((1, 2), np.float32)})["image"]),
        np.ones((1, 2), np.float32),
    )


def test_a_trusted_cache_spares_the_calibration(source: Path, int8: BuildConfig) -> None:
    former = new_fake().compile_engine(source, int8)
    fake = new_fake()
    entry = fake.compile_engine(source, int8)
    assert fake.calibration_batches("vpr") == 0
    assert (entry.engine_sha256, entry.calibration_sha256) == (former.engine_sha256, former.calibration_sha256)


def test_a_cache_is_trusted_wherever_it_was_brought_from(source: Path, int8: BuildConfig, tmp_path: Path) -> None:
    former = new_fake().compile_engine(source, int8)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / calibration_path(former.path).name).write_bytes(calibration_path(former.path).read_bytes())
    fake = new_fake(engine_dir=elsewhere)
    entry = fake.compile_engine(source, msgspec.structs.replace(int8, workspace_mb=7))
    assert fake.calibration_batches("vpr") == 0
    assert entry.path.parent == elsewhere


def retrained(source: Path, dataset: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source.write_bytes(b"new weights")


def other_value(source: Path, dataset: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_batch(dataset / "1.npz", -12.8, 3)


def other_library(source: Path, dataset: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_calibrator, "LIBRARY", "fake 2")


def altered(source: Path, dataset: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_bytes(cache.read_bytes().replace(b"image: 3", b"image: 4"))


def linked(source: Path, dataset: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.rename(cache.with_name("kept"))
    cache.symlink_to(cache.with_name("kept"))


MISTRUSTED: dict[str, tuple[Callable[[Path, Path, Path, pytest.MonkeyPatch], None], str]] = {
    "retrained source": (retrained, "source_sha256: expected "),
    "changed dataset": (other_value, "dataset_sha256: expected "),
    "other library": (other_library, "library: expected fake 2, found fake 1"),
    "altered table": (altered, "table altered: expected sha256 "),
    "link": (linked, "found a symbolic link"),
}


@pytest.mark.parametrize("case", MISTRUSTED)
def test_a_cache_that_cannot_be_trusted_stops_the_build_until_it_is_removed(
    source: Path, dataset: Path, int8: BuildConfig, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = new_fake().compile_engine(source, int8)
    cache = calibration_path(former.path)
    change, expected = MISTRUSTED[case]
    change(source, dataset, cache, monkeypatch)
    before = everything_in(former.path.parent)
    fake = new_fake()
    with pytest.raises(CalibrationCacheError, match=rf"{cache.name}: .*{expected}.*calibrated anew"):
        fake.compile_engine(source, int8)
    assert fake.calibration_batches("vpr") == 0
    assert everything_in(former.path.parent) == before

    cache.unlink()
    entry = fake.compile_engine(source, int8)
    assert fake.calibration_batches("vpr") == 2
    verify_artifact(entry)


def everything_in(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def zero_everywhere(dataset: Path) -> None:
    write_batch(dataset / "0.npz", 0, 0)
    write_batch(dataset / "1.npz", 0, 0)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "wrong shape": (lambda dataset: write_batch(dataset / "1.npz", 1, 2, 3), r"1\.npz: input image: expected"),
    "not finite": (lambda dataset: write_batch(dataset / "1.npz", 1, np.nan), r"1\.npz: .* found nan at \[0, 1\]"),
    "gone": (lambda dataset: dataset.rename(dataset.with_name("moved")), r"dataset: .*No such file"),
    "pipe": (lambda dataset: os.mkfifo(dataset / "2.npz"), r"2\.npz: .*found a named pipe"),
    "nothing to scale": (zero_everywhere, "expected a scale for each input, found none for image"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_dataset_that_cannot_be_used_is_a_build_that_leaves_nothing(
    source: Path, dataset: Path, int8: BuildConfig, case: str
) -> None:
    spoil, expected = REFUSED[case]
    spoil(dataset)
    with pytest.raises(EngineBuildError, match=expected):
        new_fake().compile_engine(source, int8)
    assert not (source.parent / "engines").exists()


def test_int8_without_a_dataset_is_refused(source: Path) -> None:
    with pytest.raises(EngineBuildError, match=r"vpr\.onnx: precision int8 .*expected calibration_dataset, found none"):
        new_fake().compile_engine(source, BuildConfig(precision="int8", optimization_profiles=PROFILE))


def test_a_dataset_is_not_read_for_another_precision(source: Path, int8: BuildConfig, dataset: Path) -> None:
    dataset.rename(dataset.with_name("moved"))
    fake = new_fake()
    entry: EngineCacheEntry = fake.compile_engine(source, msgspec.structs.replace(int8, precision="fp16"))
    assert fake.calibration_batches("vpr") == 0
    assert (entry.dataset_sha256, entry.calibration_sha256) == (None, None)
