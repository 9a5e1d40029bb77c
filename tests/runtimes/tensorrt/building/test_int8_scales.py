"""The scales of an INT8 build: which dataset is long enough, which former table is believed, and what must have one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from messages import CalibrationCacheError, EngineBuildError, TensorSpec
from runtimes.calibration.cache import CalibrationCache
from runtimes.inference_runtime import BuildConfig
from runtimes.source_model import SourceModel
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.tensorrt.building.int8_scales import MINIMUM_BATCHES, Int8Scales

INPUTS = {"image": TensorSpec((-1, 3), "float32"), "index": TensorSpec((2,), "int64")}
SOURCE = SourceModel(Path("/models/vpr.onnx"), b"source", sha256_of(b"source"))
TABLE = b"TRT-100300-EntropyCalibration2\nimage: 3c010a14\nhidden: 3c010a14\n"
VERSION = "10.3.0.30"


def dataset(folder: Path, count: int = MINIMUM_BATCHES, rows: int = 2) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        np.savez(
            folder / f"{number:02}.npz",
            image=np.full((rows, 3), number, np.float32),
            index=np.zeros(2, np.int64),
        )
    return folder


def scales(path: Path | None, cache_path: Path | None = None, version: str = VERSION) -> Int8Scales:
    config = BuildConfig(
        precision="int8",
        calibration_dataset=path,
        optimization_profiles=(("image", (1, 3), (2, 3), (4, 3)),),
    )
    return Int8Scales(SOURCE, config, INPUTS, version, cache_path)


def test_a_new_table_is_bound_to_all_that_it_was_made_from(tmp_path: Path) -> None:
    made = scales(dataset(tmp_path / "d"))

    assert made.trusted_table is None
    cache = made.cache_of(TABLE)
    assert cache.binding.library == "tensorrt 10.3.0.30"
    assert cache.binding.batches == MINIMUM_BATCHES
    assert cache.binding.source_sha256 == SOURCE.sha256
    assert cache.table_text == TABLE


def test_a_table_of_the_same_build_is_used_again_byte_for_byte(tmp_path: Path) -> None:
    path = dataset(tmp_path / "d")
    (tmp_path / "former").write_bytes(scales(path).cache_of(TABLE).encode())

    assert scales(path, tmp_path / "former").trusted_table == TABLE
    assert scales(path, tmp_path / "none").trusted_table is None


def test_a_table_of_another_tensorrt_or_dataset_is_refused_by_name(tmp_path: Path) -> None:
    path = dataset(tmp_path / "d")
    (tmp_path / "former").write_bytes(scales(path).cache_of(TABLE).encode())

    with pytest.raises(CalibrationCacheError, match=r"expected tensorrt 10\.4\.0, found tensorrt 10\.3\.0\.30"):
        scales(path, tmp_path / "former", "10.4.0")
    np.savez(path / "99.npz", image=np.ones((2, 3), np.float32), index=np.zeros(2, np.int64))
    with pytest.raises(CalibrationCacheError, match="dataset_sha256: expected"):
        scales(path, tmp_path / "former")


def test_a_short_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match=f"expected at least {MINIMUM_BATCHES} batches, found 3"):
        scales(dataset(tmp_path / "d", count=3))


def test_a_batch_of_another_shape_than_the_profiles_optimum_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match=r"00\.npz: input image"):
        scales(dataset(tmp_path / "d", rows=3))


def test_no_dataset_is_refused() -> None:
    with pytest.raises(EngineBuildError, match="expected one, found none"):
        scales(None)


@pytest.mark.parametrize("line", [b"", b"image: 0\n"])
def test_a_floating_input_without_a_scale_is_refused_in_a_new_table(tmp_path: Path, line: bytes) -> None:
    made = scales(dataset(tmp_path / "d"))

    with pytest.raises(EngineBuildError, match="expected a scale for each input, found none for image: zero in every"):
        made.cache_of(b"TRT-100300-EntropyCalibration2\nhidden: 3c010a14\n" + line)


def test_a_former_table_without_an_inputs_scale_is_not_trusted(tmp_path: Path) -> None:
    path = dataset(tmp_path / "d")
    lacking = CalibrationCache(scales(path).binding, b"TRT-100300-EntropyCalibration2\nhidden: 3c010a14\n")
    (tmp_path / "former").write_bytes(lacking.encode())

    with pytest.raises(CalibrationCacheError, match="expected a scale for each input, found none for image: zero in"):
        scales(path, tmp_path / "former")


@pytest.mark.parametrize("table", [b"", b"nonsense\n", b"TRT-100300-MinMaxCalibration\nimage: 3c010a14\n"])
def test_what_is_no_table_of_this_calibrator_is_refused(tmp_path: Path, table: bytes) -> None:
    made = scales(dataset(tmp_path / "d"))

    with pytest.raises(EngineBuildError, match="TensorRT wrote no calibration table"):
        made.cache_of(table)
