"""An engine that is not what a component needs is refused before takeoff, by name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from actors.lightglue_runtime import LightGlueRuntime
from actors.perception import Matcher, PlaceRecognition, Refiner
from actors.perception.compiled_engine import entry_of, picture_input
from actors.perception.features import KEYPOINTS_MIN, KeypointRange, PairMatching, keypoint_range
from messages import ConfigError, CorruptEngineError, TensorSpec
from runtimes import BuildConfig, FakeRuntime, returns
from runtimes.inference_runtime import EngineCacheEntry
from tests.actors.perception.scripted import GOOD, INPUTS, OUTPUTS, scripted


def entry_with(inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec] | None = None) -> EngineCacheEntry:
    entry = FakeRuntime({"net": returns({})}, inputs={"net": inputs}).entry("net")
    return msgspec.structs.replace(entry, outputs=outputs or {})


def lightglue_entry(*profiles: tuple[str, int, int], fixed: dict[str, int] | None = None) -> EngineCacheEntry:
    """LightGlue compiled for so many keypoints, as (input, least, most), or with so many fixed."""
    entry = scripted().entry("lightglue")
    ranges = tuple(
        (name, (1, least, width), (1, most, width), (1, most, width))
        for name, least, most in profiles
        for width in [entry.inputs[name].shape[2]]
    )
    inputs = {
        name: msgspec.structs.replace(spec, shape=(1, (fixed or {}).get(name, -1), spec.shape[2]))
        for name, spec in entry.inputs.items()
    }
    return msgspec.structs.replace(entry, inputs=inputs, build_config=BuildConfig(optimization_profiles=ranges))


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec((1, 3, 16, -1), "float32"),
        TensorSpec((2, 3, 16, 16), "float32"),
        TensorSpec((1, 1, 16, 16), "float32"),
        TensorSpec((1, 3, 16, 16), "uint8"),
        TensorSpec((1, 3, 256), "float32"),
        TensorSpec((1, 3, 0, 16), "float32"),
    ],
)
def test_an_engine_whose_pictures_are_of_another_kind_is_refused(spec: TensorSpec) -> None:
    with pytest.raises(ConfigError, match=r"net: expected an input image of float16 or float32\[1, 3, height, width\]"):
        picture_input(entry_with({"image": spec}), "image", channels=3)


def test_an_engine_without_the_input_is_refused_with_what_it_has() -> None:
    with pytest.raises(ConfigError, match=r"found pixels float32\[1, 3, 16, 16\]; name an engine"):
        picture_input(entry_with({"pixels": TensorSpec((1, 3, 16, 16), "float32")}), "image", channels=3)


def test_an_engine_that_wants_more_than_the_component_has_is_refused() -> None:
    inputs = {**INPUTS["ultravpr"], "mask": TensorSpec((1,), "float32")}
    runtime = FakeRuntime({"net": returns({})}, inputs={"net": inputs})
    with pytest.raises(ConfigError, match="expected the inputs image, found image float16"):
        PlaceRecognition(runtime, engine=runtime.entry("net"))
    assert runtime.loaded == ()


def test_an_engine_that_gives_something_else_is_refused_before_it_is_loaded() -> None:
    runtime = FakeRuntime({"net": returns(OUTPUTS["adhop"])}, inputs={"net": INPUTS["ultravpr"]})
    with pytest.raises(ConfigError, match="expected the outputs descriptor, found corners"):
        PlaceRecognition(runtime, engine=runtime.entry("net"))
    assert runtime.loaded == ()


def test_an_engine_is_named_by_its_path_as_well(tmp_path: Path) -> None:
    runtime = FakeRuntime(GOOD, inputs=INPUTS)
    (tmp_path / "ultravpr.onnx").write_bytes(b"model")
    entry = runtime.compile_engine(tmp_path / "ultravpr.onnx", BuildConfig())
    assert entry_of(str(entry.path)) == entry
    PlaceRecognition(runtime, engine=str(entry.path))
    assert runtime.loaded == ("ultravpr",)
    with pytest.raises(CorruptEngineError, match="absent"):
        PlaceRecognition(runtime, engine=str(tmp_path / "absent.engine"))


@pytest.mark.parametrize("engine", ["", 3, True, None])
def test_what_names_no_engine_is_refused(engine: object) -> None:
    with pytest.raises(ConfigError, match="engine: expected the path of a compiled engine or its entry, found"):
        entry_of(engine)  # type: ignore[arg-type]  # as a plan may hold it


def test_a_refiner_whose_pictures_differ_in_size_is_refused() -> None:
    inputs = {**INPUTS["adhop"], "reference": TensorSpec((1, 1, 8, 8), "float32")}
    runtime = FakeRuntime({"net": returns({})}, inputs={"net": inputs})
    with pytest.raises(ConfigError, match="query and reference of one size"):
        Refiner(runtime, engine=runtime.entry("net"), viewpoints=4)


@pytest.mark.parametrize(
    ("entry", "taken"),
    [
        (lightglue_entry(), KeypointRange(KEYPOINTS_MIN, None)),
        (lightglue_entry(("keypoints0", 4, 64)), KeypointRange(4, 64)),
        (lightglue_entry(("keypoints0", 4, 64), ("keypoints1", 16, 32)), KeypointRange(16, 32)),
        (lightglue_entry(fixed={"keypoints0": 24, "descriptors0": 24}), KeypointRange(24, 24)),
        (lightglue_entry(("keypoints1", 8, 64), fixed={"keypoints0": 24}), KeypointRange(24, 24)),
    ],
)
def test_how_many_keypoints_are_taken_is_what_both_sides_of_the_engine_allow(
    entry: EngineCacheEntry, taken: KeypointRange
) -> None:
    assert keypoint_range(entry) == taken


@pytest.mark.parametrize("keypoints", [0, KEYPOINTS_MIN - 1])
def test_fewer_keypoints_than_the_engine_takes_are_refused(keypoints: int) -> None:
    runtime = scripted()
    with pytest.raises(ConfigError, match=f"expected 8 to any number.*found {keypoints}"):
        PairMatching(LightGlueRuntime(runtime, runtime.entry("lightglue")), keypoints)


def test_an_extractor_given_as_lightglue_is_refused() -> None:
    runtime = scripted()
    with pytest.raises(ConfigError, match="xfeat: expected the inputs keypoints0"):
        Matcher(
            runtime,
            LightGlueRuntime(runtime, runtime.entry("xfeat")),
            extractor=runtime.entry("xfeat"),
            keypoints=16,
        )
