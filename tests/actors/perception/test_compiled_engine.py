"""An engine that is not what a component needs is refused before takeoff, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from actors.lightglue_runtime import LightGlueRuntime
from actors.perception import Matcher, PlaceRecognition, Refiner, ReRanker, pictures
from actors.perception.compiled_engine import entry_of, picture_input
from actors.perception.features import KEYPOINTS_MIN, KeypointRange, PairMatching, keypoint_range
from messages import ConfigError, CorruptEngineError, TensorSpec
from runtimes import BuildConfig, FakeRuntime, computes, returns
from runtimes.inference_runtime import EngineCacheEntry
from tests.actors.perception.scripted import GOOD, INPUTS, KEYPOINTS, OUTPUTS, WIDTH, NumberedTiles, scripted


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


def c2(runtime: FakeRuntime) -> object:
    return PlaceRecognition(runtime, engine=runtime.entry("ultravpr"))


def c2_5(runtime: FakeRuntime) -> object:
    lightglue = LightGlueRuntime(runtime, runtime.entry("lightglue"))
    return ReRanker(runtime, lightglue, extractor=runtime.entry("xfeat"), keypoints=16, tile_source=NumberedTiles())


def c3(runtime: FakeRuntime) -> object:
    lightglue = LightGlueRuntime(runtime, runtime.entry("lightglue"))
    return Matcher(runtime, lightglue, extractor=runtime.entry("xfeat"), keypoints=16)


def c3_5(runtime: FakeRuntime) -> object:
    return Refiner(runtime, engine=runtime.entry("adhop"), viewpoints=4)


ASKS = [(c2, "ultravpr"), (c2_5, "xfeat"), (c2_5, "lightglue"), (c3, "xfeat"), (c3, "lightglue"), (c3_5, "adhop")]


@pytest.mark.parametrize(("component", "model"), ASKS)
def test_an_engine_that_wants_more_than_the_component_has_is_refused(
    component: Callable[[FakeRuntime], object], model: str
) -> None:
    wants_more = {**INPUTS, model: {**INPUTS[model], "mask": TensorSpec((1,), "float32")}}
    runtime = FakeRuntime(GOOD, inputs=wants_more)
    with pytest.raises(ConfigError, match=rf"{model}: expected the inputs .*, found .*mask float32\[1\]; name"):
        component(runtime)
    assert set(runtime.loaded) <= {"lightglue"}


@pytest.mark.parametrize(("component", "model"), ASKS)
def test_an_engine_that_gives_something_else_is_refused_before_it_is_loaded(
    component: Callable[[FakeRuntime], object], model: str
) -> None:
    runtime = FakeRuntime({**GOOD, model: returns({"logits": np.zeros(3, np.float32)})}, inputs=INPUTS)
    with pytest.raises(ConfigError, match=rf"{model}: expected the outputs .*, found logits float32\[3\]; name"):
        component(runtime)
    assert set(runtime.loaded) <= {"lightglue"}


@pytest.mark.parametrize("component", [c2, c2_5, c3, c3_5])
def test_without_pillow_a_component_is_refused_before_the_first_frame(
    component: Callable[[FakeRuntime], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pillow, found it not installed"):
        component(scripted())


@pytest.mark.parametrize("component", [c2_5, c3])
def test_more_keypoints_than_lightglue_was_compiled_for_are_refused(
    component: Callable[[FakeRuntime], object],
) -> None:
    fixed = {name: TensorSpec((1, 12, spec.shape[2]), spec.dtype) for name, spec in INPUTS["lightglue"].items()}
    runtime = FakeRuntime(GOOD, inputs={**INPUTS, "lightglue": fixed})
    with pytest.raises(ConfigError, match=r"keypoints: expected 12 to 12, .* lightglue was compiled for, found 16"):
        component(runtime)


@pytest.mark.parametrize(("found", "width"), [(KEYPOINTS, WIDTH + 1), (KEYPOINTS_MIN - 1, WIDTH)])
@pytest.mark.parametrize("component", [c2_5, c3])
def test_an_extractor_that_does_not_belong_to_lightglue_is_refused(
    component: Callable[[FakeRuntime], object], found: int, width: int
) -> None:
    descriptors = np.ones((1, found, width), np.float32)
    runtime = FakeRuntime({**GOOD, "xfeat": returns({**OUTPUTS["xfeat"], "descriptors": descriptors})}, inputs=INPUTS)
    with pytest.raises(
        ConfigError, match=rf"xfeat gives descriptors .*: expected at least 8 of width {WIDTH}, .*lightg"
    ):
        component(runtime)
    assert runtime.loaded == ("lightglue",)


@pytest.mark.parametrize("component", [c2_5, c3])
def test_engines_of_another_rank_are_refused(component: Callable[[FakeRuntime], object]) -> None:
    flat = {name: TensorSpec((WIDTH,), "float32") for name in INPUTS["lightglue"]}
    with pytest.raises(ConfigError, match=r"lightglue: expected inputs of \[1, n, width\], found keypoints0 float32"):
        component(FakeRuntime(GOOD, inputs={**INPUTS, "lightglue": flat}))
    runtime = FakeRuntime(
        {**GOOD, "xfeat": returns({**OUTPUTS["xfeat"], "descriptors": np.ones(WIDTH, np.float32)})}, inputs=INPUTS
    )
    with pytest.raises(ConfigError, match=r"xfeat gives descriptors float32\[4\]"):
        component(runtime)


def test_an_extractor_that_does_not_say_what_it_finds_is_taken_at_its_word() -> None:
    runtime = FakeRuntime({**GOOD, "xfeat": computes(lambda _inputs: OUTPUTS["xfeat"])}, inputs=INPUTS)
    c3(runtime)
    assert runtime.loaded == ("lightglue", "xfeat")


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
