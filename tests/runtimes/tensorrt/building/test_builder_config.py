"""A recipe on TensorRT's configuration object: what it has to take, and what another hand may not have done to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from messages import ConfigError, EngineBuildError
from runtimes.cuda.port import Cuda
from runtimes.inference_runtime import BuildConfig
from runtimes.onnx_types import OnnxTypes
from runtimes.tensorrt.building.builder_config import add_profile, configure, refuse_another_recipe
from runtimes.tensorrt.building.network import BuilderConfig, ParsedModel
from runtimes.tensorrt.building.recipe import EngineRecipe, engine_recipe
from runtimes.tensorrt.building.with_polygraphy import refuse_environment
from runtimes.tensorrt.log import TensorrtLog
from tests.runtimes.tensorrt.building.builds import PROFILE, Bench, descriptor

if TYPE_CHECKING:
    from tests.doubles.tensorrt.core import Core

RECIPE = engine_recipe("m", BuildConfig(optimization_profiles=PROFILE), OnnxTypes())


@pytest.fixture
def bench(trt: ModuleType, log: TensorrtLog, cuda: Cuda, tmp_path: Path) -> Bench:
    return Bench(trt, log, cuda, tmp_path)


Configure = Callable[[EngineRecipe], BuilderConfig]


@pytest.fixture
def configured(trt: ModuleType, log: TensorrtLog, cuda: Cuda) -> Configure:
    """`configured(recipe)`: a configuration with all of a recipe that needs no calibrator."""
    builders: list[Any] = []

    def configured(recipe: EngineRecipe) -> BuilderConfig:
        builders.append(trt.Builder(log))
        config: BuilderConfig = builders[-1].create_builder_config()
        configure(trt, config, recipe)
        add_profile(builders[-1], config, recipe)
        return config

    return configured


def test_what_was_set_is_what_is_read_back(trt: ModuleType, configured: Configure) -> None:
    refuse_another_recipe(trt, configured(RECIPE), RECIPE, "tool")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"profile": ()}, r"with 1 profile, found .* with 0; build"),
        ({"optimization_level": 5}, r"expected .*, 3, False\) with 1 profile, found .*, 5, False\) with 1;"),
        ({"set_flags": ()}, r"tool: expected .*\(\('FP16',\), .*found \(\(\), "),
        ({"set_flags": ("BF16", "FP16")}, r"found \(\('BF16', 'FP16'\), "),
        ({"cleared_flags": ()}, r"found \(\('FP16', 'TF32'\), "),
    ],
)
def test_whatever_a_tool_made_of_a_recipe_beside_it_is_refused(
    trt: ModuleType, configured: Configure, changes: dict[str, Any], words: str
) -> None:
    made = configured(msgspec.structs.replace(RECIPE, **changes))
    with pytest.raises(EngineBuildError, match=words):
        refuse_another_recipe(trt, made, RECIPE, "tool")


def test_int8_without_a_calibrator_is_refused_before_the_build(trt: ModuleType, configured: Configure) -> None:
    """TensorRT only warns of it ("Calibrator is not being used")."""
    int8 = msgspec.structs.replace(RECIPE, set_flags=("FP16", "INT8"), calibrated=True)
    with pytest.raises(EngineBuildError, match=r"calibrator .*, 3, True\) .*found .*, 3, False\)"):
        refuse_another_recipe(trt, configured(int8), int8, "tool")


@pytest.mark.parametrize(
    ("owner", "method", "answer"),
    [("IOptimizationProfile", "__bool__", False), ("IBuilderConfig", "add_optimization_profile", -1)],
)
def test_a_profile_that_is_incomplete_or_was_not_taken_is_no_build(
    bench: Bench, trt: ModuleType, monkeypatch: pytest.MonkeyPatch, owner: str, method: str, answer: object
) -> None:
    monkeypatch.setattr(trt.IBuilderConfig, "add_optimization_profile", lambda config, profile: 0)
    monkeypatch.setattr(getattr(trt, owner), method, lambda *_given: answer)
    with pytest.raises(
        EngineBuildError, match=r"TensorRT refuses the optimisation profile \(\('image', \(1, 3, 8, 8\)"
    ):
        bench.build(descriptor())


def test_a_profile_that_tensorrt_does_not_calibrate_in_is_no_build(
    bench: Bench, trt: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt.IBuilderConfig, "set_calibration_profile", lambda config, profile: False)
    with pytest.raises(EngineBuildError, match=r"TensorRT refuses to calibrate in the profile \(\('image', "):
        bench.build(descriptor(), "int8", dataset=bench.dataset())


def test_a_model_is_not_parsed_without_tensorrts_own_plugins(bench: Bench, core: Core) -> None:
    path = bench.save(descriptor())
    core.plugins_register = False
    with pytest.raises(EngineBuildError, match=r"model\.onnx: TensorRT's own plugins cannot be registered"):
        ParsedModel(bench.trt, bench.log, path, strongly_typed=False)


def test_a_build_on_another_thread_is_on_the_same_device(
    bench: Bench, on_thread: Callable[[Callable[[], Any]], Any]
) -> None:
    assert on_thread(lambda: bench.build(descriptor()).data) == bench.build(descriptor()).data


# Polygraphy.


@pytest.mark.parametrize("name", ["POLYGRAPHY_AUTOINSTALL_DEPS", "POLYGRAPHY_USE_TENSORRT_RTX"])
def test_an_environment_that_turns_polygraphy_elsewhere_is_refused_by_name(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    refuse_environment({name: "0"})
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError, match=rf"^{name}: expected none of them in the environment; unset them$"):
        bench.build(descriptor(), builder="polygraphy")


def test_a_name_that_polygraphy_takes_for_a_pattern_is_refused(bench: Bench) -> None:
    data = descriptor().replace(b"image", b"im[g]")
    profile = (("im[g]", *PROFILE[0][1:]),)
    with pytest.raises(EngineBuildError, match=r"Polygraphy takes the input names im\[g\] for patterns; build with"):
        bench.build(data, builder="polygraphy", profile=profile)
    assert bench.build(data, builder="api", profile=profile).data


def test_what_polygraphy_configured_is_read_back(
    bench: Bench, trt: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("polygraphy", reason="Polygraphy is not installed here")
    set_flag = trt.IBuilderConfig.set_flag

    def with_sparse_weights(config: Any, flag: Any) -> None:
        set_flag(config, flag)
        set_flag(config, trt.BuilderFlag.SPARSE_WEIGHTS)

    monkeypatch.setattr(trt.IBuilderConfig, "set_flag", with_sparse_weights)
    with pytest.raises(EngineBuildError, match=r"polygraphy: expected flags, .*found \(\('FP16', 'SPARSE_WEIGHTS'\)"):
        bench.build(descriptor(), builder="polygraphy")
