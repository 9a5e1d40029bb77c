"""The engine file name: what it says, how it is read back, and what it never becomes."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from messages import ConfigError
from runtimes.inference_runtime import HostTuple, Precision
from runtimes.store.engine_artifact import engine_files, optional_files
from runtimes.store.engine_filename import FILENAME_MAX_CHARS, EngineFilenameSchema, check_model_name

MODELS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", fullmatch=True).filter(lambda name: ".." not in name)
VERSIONS = st.from_regex(r"[0-9]{1,3}([.+-][0-9a-z]{1,5}){0,3}", fullmatch=True)
PRECISIONS: st.SearchStrategy[Precision] = st.sampled_from(["fp16", "int8", "mixed", "fp32"])


def host(*, sm: int = 87, jetpack: str = "6.2", tensorrt: str = "10.3.0.30") -> HostTuple:
    return HostTuple(
        sm=sm,
        sm_count=8,
        device_name="Orin",
        jetpack=jetpack,
        l4t="36.4.3",
        tensorrt=tensorrt,
        cuda="12.6",
        machine="aarch64",
        runtime_version="10.3.0.30",
    )


def test_the_specifications_example_is_written_and_read() -> None:
    schema = EngineFilenameSchema(model="ultravpr", sm=87, jetpack="6.2", tensorrt="10.3", precision="fp16")
    assert schema.format() == "ultravpr__sm87_jp6.2_trt10.3_fp16.engine"
    assert EngineFilenameSchema.parse("ultravpr__sm87_jp6.2_trt10.3_fp16.engine") == schema


def test_the_name_on_a_host_carries_major_and_minor_of_tensorrt() -> None:
    assert EngineFilenameSchema.for_host("vpr", host(), "int8").format() == "vpr__sm87_jp6.2_trt10.3_int8.engine"


def test_a_processor_without_jetpack_and_tensorrt_has_a_name_too() -> None:
    named = EngineFilenameSchema.for_host("vpr", host(sm=0, jetpack="0", tensorrt="0"), "fp32")
    assert named.format() == "vpr__sm0_jp0_trt0_fp32.engine"


@given(MODELS, st.integers(0, 10_000), VERSIONS, VERSIONS, PRECISIONS)
def test_parse_is_the_inverse_of_format(model: str, sm: int, jetpack: str, tensorrt: str, precision: Precision) -> None:
    schema = EngineFilenameSchema(model=model, sm=sm, jetpack=jetpack, tensorrt=tensorrt, precision=precision)
    assert EngineFilenameSchema.parse(schema.format()) == schema


@given(MODELS)
def test_a_model_named_like_an_engine_file_is_read_back_whole(model: str) -> None:
    tricky = f"{model}__sm1_jp0_trt0_fp16.engine"
    schema = EngineFilenameSchema(model=tricky, sm=87, jetpack="6.2", tensorrt="10.3", precision="fp16")
    assert EngineFilenameSchema.parse(schema.format()).model == tricky


@given(st.text(max_size=300))
def test_any_text_is_read_back_exactly_or_refused(name: str) -> None:
    try:
        schema = EngineFilenameSchema.parse(name)
    except ConfigError:
        return
    assert schema.format() == name
    assert "/" not in name
    assert ".." not in name
    assert name.isascii()


AWKWARD = st.text(st.sampled_from("a0._-+/\\\0\n é…٣"), max_size=12) | st.text(max_size=250)


@given(
    AWKWARD | MODELS, st.integers(-10, 10_000), AWKWARD | VERSIONS, AWKWARD | VERSIONS, st.text(max_size=8) | PRECISIONS
)
def test_whatever_its_parts_a_name_is_one_plain_file_and_reads_back_or_there_is_none(
    model: str, sm: int, jetpack: str, tensorrt: str, precision: str
) -> None:
    try:
        schema = EngineFilenameSchema(
            model=model,
            sm=sm,
            jetpack=jetpack,
            tensorrt=tensorrt,
            precision=precision,  # type: ignore[arg-type]
        )
    except ConfigError:
        return
    name = schema.format()
    assert EngineFilenameSchema.parse(name) == schema
    assert PurePosixPath(name).name == name
    assert not name.startswith((".", "-"))
    assert ".." not in name
    assert re.fullmatch(r"[!-~]{1,200}", name)


@given(MODELS, VERSIONS, PRECISIONS, st.data())
def test_no_change_of_one_character_reads_as_the_same_engine(
    model: str, version: str, precision: Precision, data: st.DataObject
) -> None:
    schema = EngineFilenameSchema(model=model, sm=87, jetpack=version, tensorrt=version, precision=precision)
    name = schema.format()
    at = data.draw(st.integers(0, len(name) - 1))
    other = name[:at] + data.draw(st.characters().filter(lambda character: character != name[at])) + name[at + 1 :]
    with contextlib.suppress(ConfigError):
        assert EngineFilenameSchema.parse(other) != schema


@pytest.mark.parametrize("part", ["/", "\\", "..", "../x", "6/2", "6..2", "é", "٣", "6.2\n", "", " ", "6" * 300])
@pytest.mark.parametrize("field", ["jetpack", "tensorrt"])
def test_a_version_that_cannot_be_said_in_a_file_name_is_refused(field: str, part: str) -> None:
    versions = {"jetpack": "6.2", "tensorrt": "10.3", field: part}
    with pytest.raises(ConfigError, match="engine file"):
        EngineFilenameSchema(model="vpr", sm=87, precision="fp16", **versions)


@given(st.text(max_size=100))
def test_any_model_name_is_safe_in_a_file_name_or_refused(model: str) -> None:
    assume(not (model.isascii() and model.replace("_", "").isalnum()))
    try:
        check_model_name(model)
    except ConfigError:
        with pytest.raises(ConfigError):
            EngineFilenameSchema(model=model, sm=0, jetpack="0", tensorrt="0", precision="fp16")
        return
    assert not set(model) & set("/\\\0 \n")
    assert ".." not in model


@pytest.mark.parametrize(
    "model", ["", "a/b", "../vpr", "a..b", ".hidden", "-flag", "vpr ", "vpr\n", "vpré", "a\\b", "a\0b", "x" * 300]
)
def test_a_model_that_cannot_be_said_in_a_file_name_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match="model"):
        EngineFilenameSchema(model=model, sm=87, jetpack="6.2", tensorrt="10.3", precision="fp16")


@pytest.mark.parametrize(
    "name",
    [
        "vpr__sm087_jp6.2_trt10.3_fp16.engine",
        "vpr__sm87_jp6.2_trt10.3_fp8.engine",
        "vpr__sm87_jp6_2_trt10.3_fp16.engine",
        "vpr__sm87_jp_trt10.3_fp16.engine",
        "vpr__sm-1_jp6.2_trt10.3_fp16.engine",
        "vpr__sm87_jp6..2_trt10.3_fp16.engine",
        "vpr__sm87_jp6.2_trt10.3_fp16.engine\n",
        "sub/vpr__sm87_jp6.2_trt10.3_fp16.engine",
        "vpr_sm87_jp6.2_trt10.3_fp16.engine",
    ],
)
def test_a_name_that_is_almost_one_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        EngineFilenameSchema.parse(name)


def test_the_longest_name_leaves_room_for_the_suffixes_of_its_neighbours() -> None:
    fixed = len("__sm87_jp6.2_trt10.3_fp16.engine")
    model = "m" * (FILENAME_MAX_CHARS - fixed)
    named = EngineFilenameSchema(model=model, sm=87, jetpack="6.2", tensorrt="10.3", precision="fp16")
    assert len(named.format()) == FILENAME_MAX_CHARS
    engine = Path(named.format())
    for path in (*engine_files(engine), *optional_files(engine)):
        assert len(path.name) <= 255
    with pytest.raises(ConfigError, match="shorten"):
        EngineFilenameSchema(model=model + "m", sm=87, jetpack="6.2", tensorrt="10.3", precision="fp16")
