"""Calibration datasets: every batch fits the model and is finite, and none changes between the check and the use."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from messages import EngineBuildError, TensorSpec
from runtimes.calibration.batch_feed import BatchFeed
from runtimes.calibration.dataset import CalibrationDataset
from runtimes.inference_runtime import ProfileRange
from runtimes.npz_file import encode_npz
from runtimes.samples import Samples

INPUTS = {"image": TensorSpec((-1, 3, 4, 4), "float32"), "view": TensorSpec((1,), "int64")}
PROFILE: tuple[ProfileRange, ...] = (("image", (1, 3, 4, 4), (2, 3, 4, 4), (4, 3, 4, 4)),)


def batch(value: float = 1.0, **changed: object) -> dict[str, np.ndarray]:
    arrays: dict[str, object] = {"image": np.full((2, 3, 4, 4), value, np.float32), "view": np.array([3])}
    arrays.update(changed)
    return {name: np.asarray(array) for name, array in arrays.items() if array is not None}


def write_batch(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    path.write_bytes(encode_npz(arrays))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    folder.mkdir()
    for number in range(3):
        write_batch(folder / f"{number}.npz", batch(number + 1.0))
    return folder


def test_a_dataset_gives_its_batches_in_order_and_knows_its_content(folder: Path) -> None:
    dataset = CalibrationDataset.open(folder, INPUTS, PROFILE, minimum_batches=3)
    assert dataset.count == 3
    assert [dataset.batch(index)["image"].flat[0] for index in range(3)] == [1, 2, 3]
    assert dataset.sha256 == Samples.open(folder).sha256


def test_the_arrays_of_a_batch_come_in_the_models_order_and_contiguous(folder: Path) -> None:
    turned = np.asfortranarray(batch()["image"])
    write_batch(folder / "0.npz", {"view": np.array([3]), "image": turned})
    first = CalibrationDataset.open(folder, INPUTS, PROFILE).batch(0)
    assert list(first) == ["image", "view"]
    assert first["image"].flags.c_contiguous


WRONG: dict[str, tuple[Mapping[str, np.ndarray], str]] = {
    "missing": (batch(view=None), r"input view is missing: expected int64\[1\], found image"),
    "extra": (batch(mask=np.zeros(1)), "input mask is unknown: expected image, view"),
    "dtype": (
        batch(image=np.ones((2, 3, 4, 4))),
        r"input image: expected float32\[2, 3, 4, 4\], found float64\[2, 3, 4, 4\]",
    ),
    "shape": (batch(image=np.ones((2, 3, 4, 5), np.float32)), r"found float32\[2, 3, 4, 5\]"),
    "rank": (batch(image=np.ones((3, 4, 4), np.float32)), r"found float32\[3, 4, 4\]"),
    "other shape of the profile": (batch(image=np.ones((4, 3, 4, 4), np.float32)), r"found float32\[4, 3, 4, 4\]"),
    "byte order": (batch(image=np.ones((2, 3, 4, 4), ">f4")), "of foreign byte order"),
    "not a number": (batch(np.nan), r"input image: expected finite values, found nan at \[0, 0, 0, 0\]"),
    "infinite": (batch(-np.inf), "input image: expected finite values, found -inf"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_batch_that_does_not_fit_the_model_is_refused_with_file_and_input(folder: Path, case: str) -> None:
    arrays, expected = WRONG[case]
    write_batch(folder / "1.npz", arrays)
    with pytest.raises(EngineBuildError, match=rf"calibration dataset .*1\.npz: .*{expected}"):
        CalibrationDataset.open(folder, INPUTS, PROFILE)


def test_the_first_value_that_is_not_finite_is_located(folder: Path) -> None:
    image = batch()["image"]
    image[1, 2, 0, 3] = np.inf
    write_batch(folder / "2.npz", batch(image=image))
    with pytest.raises(EngineBuildError, match=r"2\.npz: input image: .* found inf at \[1, 2, 0, 3\]"):
        CalibrationDataset.open(folder, INPUTS, PROFILE)


def remove_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no npz": (remove_all, r"expected \.npz files .* found none"),
    "empty file": (lambda folder: (folder / "1.npz").write_bytes(b""), r"1\.npz: the sample is empty"),
    "no npz inside": (lambda folder: (folder / "1.npz").write_bytes(b"x" * 99), r"1\.npz: expected an \.npz file"),
    "short": (lambda folder: (folder / "1.npz").unlink(), r"expected at least 3 batches, found 2"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_dataset_that_is_empty_short_or_none_is_refused(folder: Path, case: str) -> None:
    spoil, expected = UNUSABLE[case]
    spoil(folder)
    with pytest.raises(EngineBuildError, match=f"calibration dataset .*{expected}"):
        CalibrationDataset.open(folder, INPUTS, PROFILE, minimum_batches=3)


def test_a_missing_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match=r"nowhere: .*No such file"):
        CalibrationDataset.open(tmp_path / "nowhere", INPUTS, PROFILE)


def test_a_dynamic_input_without_a_profile_has_no_shape_to_calibrate_at(folder: Path) -> None:
    with pytest.raises(EngineBuildError, match=r"expected a profile for each dynamic input.*image float32\[\?, 3"):
        CalibrationDataset.open(folder, INPUTS)
    with pytest.raises(EngineBuildError, match="expected a model with inputs"):
        CalibrationDataset.open(folder, {})


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another value": (lambda folder: write_batch(folder / "2.npz", batch(9)), r"2\.npz: changed while"),
    "gone": (lambda folder: (folder / "2.npz").unlink(), r"2\.npz: .*No such file"),
    "one more": (lambda folder: write_batch(folder / "3.npz", batch(9)), r"the folder changed .*: 3\.npz"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_dataset_that_changes_while_it_is_checked_is_refused(
    folder: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, expected = CHANGES[change]
    opened = Samples.open

    def open_and_spoil(path: Path) -> Samples:
        samples = opened(path)
        spoil(folder)
        return samples

    monkeypatch.setattr(Samples, "open", staticmethod(open_and_spoil))
    with pytest.raises(EngineBuildError, match=expected):
        CalibrationDataset.open(folder, INPUTS, PROFILE)


def take_all(feed: BatchFeed) -> int:
    taken = 0
    while feed.next_batch() is not None:
        taken += 1
    return taken


def test_a_feed_hands_every_batch_out_once(folder: Path) -> None:
    feed = BatchFeed(CalibrationDataset.open(folder, INPUTS, PROFILE))
    assert take_all(feed) == 3
    assert feed.next_batch() is None
    feed.finish()
    assert feed.taken == 3


@pytest.mark.parametrize("change", CHANGES)
def test_a_dataset_that_changes_while_it_is_used_ends_the_feed_and_is_told_at_the_end(
    folder: Path, change: str
) -> None:
    spoil, expected = CHANGES[change]
    feed = BatchFeed(CalibrationDataset.open(folder, INPUTS, PROFILE))
    assert feed.next_batch() is not None
    spoil(folder)
    take_all(feed)
    with pytest.raises(EngineBuildError, match=expected):
        feed.finish()


def test_a_calibrator_that_ends_early_is_found_out(folder: Path) -> None:
    feed = BatchFeed(CalibrationDataset.open(folder, INPUTS, PROFILE))
    feed.next_batch()
    with pytest.raises(EngineBuildError, match="expected the calibrator to take 3 batches, found that it took 1"):
        feed.finish()


def test_a_fault_inside_the_callback_is_raised_after_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = CalibrationDataset.open(folder, INPUTS, PROFILE)

    def fail(index: int) -> dict[str, np.ndarray]:
        raise MemoryError("2 GiB")

    monkeypatch.setattr(dataset, "batch", fail)
    feed = BatchFeed(dataset)
    assert feed.next_batch() is None
    with pytest.raises(MemoryError, match="2 GiB"):
        feed.finish()


def test_one_batch_is_in_memory_at_a_time(tmp_path: Path) -> None:
    specs = {"image": TensorSpec((1_000_000,), "float32")}
    for number in range(8):
        write_batch(tmp_path / f"{number}.npz", {"image": np.full(1_000_000, number + 1.0, np.float32)})
    tracemalloc.start()
    try:
        feed = BatchFeed(CalibrationDataset.open(tmp_path, specs))
        take_all(feed)
        feed.finish()
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The file and its array, and the mask of what is finite; eight batches would take 32 MB for the arrays alone.
    assert peak_bytes < 16_000_000
