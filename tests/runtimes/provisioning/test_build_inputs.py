"""What a build is tried on: given samples as the engine takes them, or made-up inputs, and never anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from messages import ConfigError, TensorSpec
from runtimes.fake_runtime import FakeRuntime
from runtimes.fake_steps import returns
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry, ProfileRange
from runtimes.npz_file import write_npz
from runtimes.provisioning.build_inputs import MADE_UP, BuildInputs
from runtimes.samples import Samples

IMAGE = TensorSpec((-1, 4), "float16")
INDEX = TensorSpec((2,), "int64")
PROFILE: tuple[ProfileRange, ...] = (("image", (1, 4), (2, 4), (8, 4)),)


def engine(profile: tuple[ProfileRange, ...] = PROFILE) -> EngineCacheEntry:
    import msgspec

    fake = FakeRuntime({"vpr": returns({})}, inputs={"vpr": {"image": IMAGE, "index": INDEX}})
    build_config = BuildConfig(optimization_profiles=profile)
    return msgspec.structs.replace(fake.entry("vpr"), build_config=build_config)


def save(path: Path, **arrays: np.ndarray) -> Path:
    write_npz(path, arrays)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(3):
        image = np.full((index + 1, 4), index / 3, np.float32)
        save(tmp_path / f"{index}.npz", image=image, index=np.array([index, 1]))
    return tmp_path


def test_made_up_inputs_are_the_same_ones_each_time_and_differ_from_each_other() -> None:
    inputs = BuildInputs(engine(), None)
    first, second = list(inputs), list(inputs)
    assert len(first) == inputs.count == MADE_UP
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
    assert not np.array_equal(first[0]["image"], first[1]["image"])
    assert inputs.samples_sha256 is None


def test_made_up_inputs_have_the_optimal_shape_and_the_heaviest_and_smallest_the_extremes() -> None:
    inputs = BuildInputs(engine(), None)
    assert inputs.first()["image"].shape == (2, 4)
    assert inputs.heaviest()["image"].shape == (8, 4)
    assert inputs.smallest()["image"].shape == (1, 4)
    assert inputs.first()["image"].dtype == np.float16
    assert inputs.first()["index"].tolist() == [0, 0]


def test_a_dynamic_input_without_a_profile_and_without_samples_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"image is float16\[\?, 4\].*add \[models\.vpr\.profiles\.image\]"):
        BuildInputs(engine(()), None)


def test_samples_come_in_the_order_of_their_names_and_in_the_engines_types(folder: Path) -> None:
    inputs = BuildInputs(engine(), folder)
    given = list(inputs)
    assert [each["image"].shape[0] for each in given] == [1, 2, 3]
    assert {each["image"].dtype for each in given} == {np.dtype(np.float16)}
    assert given[1]["image"][0, 0] == np.float16(1 / 3)
    assert (inputs.count, inputs.samples_sha256) == (3, Samples.open(folder).sha256)


def test_with_samples_a_dynamic_input_needs_no_profile(folder: Path) -> None:
    inputs = BuildInputs(engine(()), folder)
    assert inputs.heaviest()["image"].shape == inputs.first()["image"].shape == (1, 4)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"image": np.zeros((2, 4), np.float32)}, "index is missing"),
        ({"image": np.zeros((2, 4), np.float32), "index": np.zeros(2, np.int32)}, "index: expected int64"),
        ({"image": np.zeros((9, 4), np.float32), "index": np.zeros(2, np.int64)}, "image: expected float16"),
        ({"image": np.zeros((2, 4), np.uint8), "index": np.zeros(2, np.int64)}, "image: expected float16"),
        (
            {"image": np.zeros((2, 4), np.float32), "index": np.zeros(2, np.int64), "mask": np.zeros(1)},
            "mask is unknown",
        ),
        ({"image": np.full((2, 4), 1e6, np.float32), "index": np.zeros(2, np.int64)}, "float16 can hold, found 1e.06"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_with_its_file_and_input(
    tmp_path: Path, arrays: dict[str, np.ndarray], says: str
) -> None:
    path = save(tmp_path / "flight.npz", **arrays)
    with pytest.raises(ConfigError, match=rf"flight\.npz: .*{says}"):
        list(BuildInputs(engine(), path))


def test_an_infinity_that_a_sample_really_has_stays_one(tmp_path: Path) -> None:
    path = save(tmp_path / "s.npz", image=np.full((1, 4), np.inf, np.float32), index=np.zeros(2, np.int64))
    assert np.isinf(BuildInputs(engine(), path).first()["image"]).all()


def test_samples_that_change_meanwhile_are_refused(folder: Path) -> None:
    inputs = BuildInputs(engine(), folder)
    save(folder / "1.npz", image=np.ones((2, 4), np.float32), index=np.array([1, 1]))
    with pytest.raises(ConfigError, match=r"1\.npz: changed"):
        list(inputs)
