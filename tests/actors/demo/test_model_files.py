"""The files that are written fly: each is compiled and run, as the plan says, by the runtime it is written for."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from actors.demo import model_files
from actors.demo.backbone import BackboneSize
from actors.demo.extractor import ExtractorSize
from actors.demo.matcher import MatcherSize
from actors.demo.model_files import write_models
from actors.demo.networks import SIZES, DemoRuntime, NetworkSizes
from actors.demo.plan import write_flight_plan
from actors.demo.refiner import RefinerSize
from messages import ConfigError, InferenceError, InvalidInputError, specs_of
from runtimes import EngineHandle, InferenceRuntime, build_inference_runtime, sample_inputs
from runtimes.flight_plan_file import read_flight_plan

pytest.importorskip("onnx")

ROOT = Path(__file__).parents[3]
TINY = NetworkSizes(
    dtype="float16",
    backbone=BackboneSize(image_px=32, patch_px=16, width=32, heads=2, blocks=1, descriptor=16),
    extractor=ExtractorSize(image_px=32, channels=2, descriptor=16, keypoints=16),
    matcher=MatcherSize(image_px=32, descriptor=16, width=16, heads=2, layers=1),
    refiner=RefinerSize(image_px=16, channels=4, hidden=8, steps=2, viewpoints=32),
    rerank_keypoints=9,
    match_keypoints=16,
)
"""torch.export takes seconds for the real sizes; these hold every operator of them."""


@pytest.fixture(
    scope="module", params=["onnx_trt_ep", pytest.param("pytorch_fp16", marks=pytest.mark.torch)], name="engines"
)
def loaded_engines(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[InferenceRuntime, dict[str, EngineHandle]]:
    """Every model of a set, compiled and loaded as its flight plan says."""
    runtime_name: DemoRuntime = request.param
    pytest.importorskip("torch" if runtime_name == "pytorch_fp16" else "onnxruntime")
    folder = tmp_path_factory.mktemp(runtime_name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "pytorch_fp16", TINY)
        models = write_models(folder / "models", runtime_name)
        plan = read_flight_plan(write_flight_plan(folder, runtime=runtime_name, models=models, flight_s=20.0))
    runtime = build_inference_runtime(plan.runtime)
    entries = {
        name: runtime.compile_engine(section.source, section.build_config()) for name, section in plan.models.items()
    }
    return runtime, {name: runtime.deserialize_engine(entry) for name, entry in entries.items()}


Engines = tuple[InferenceRuntime, dict[str, EngineHandle]]


@pytest.mark.parametrize("model", ["backbone", "extractor", "matcher", "refiner"])
def test_each_model_runs_on_the_plans_own_profile(engines: Engines, model: str) -> None:
    runtime, handles = engines
    entry = handles[model].entry
    outputs = runtime.infer(handles[model], sample_inputs(entry))
    assert specs_of(outputs).keys() == entry.outputs.keys()
    for name, array in outputs.items():
        assert np.isfinite(np.asarray(array)).all(), name


def test_a_viewpoint_outside_the_table_is_an_inference_error_and_no_input_error(engines: Engines) -> None:
    runtime, handles = engines
    inputs = sample_inputs(handles["refiner"].entry)
    with pytest.raises(InferenceError, match="refiner") as caught:
        runtime.infer(handles["refiner"], inputs | {"viewpoint": np.array([32])})
    assert not isinstance(caught.value, InvalidInputError)


def test_the_matcher_runs_on_every_count_of_its_profile_and_on_no_other(engines: Engines) -> None:
    runtime, handles = engines
    entry = handles["matcher"].entry
    (_, low, _, high), *_ = entry.build_config.optimization_profiles
    width = entry.inputs["descriptors0"].shape[2]
    dtype = entry.inputs["descriptors0"].dtype

    def inputs(n0: int, n1: int) -> dict[str, np.ndarray]:
        counts = {"0": n0, "1": n1}
        places = {f"keypoints{side}": np.ones((1, n, 2), dtype) for side, n in counts.items()}
        return places | {f"descriptors{side}": np.ones((1, n, width), dtype) for side, n in counts.items()}

    for n0, n1 in ((low[1], high[1]), (high[1], low[1]), (low[1] + 1, low[1] + 1)):
        outputs = runtime.infer(handles["matcher"], inputs(n0, n1))
        assert tuple(outputs["log_assignment"].shape) == (1, n0, n1)
    for n in (low[1] - 1, high[1] + 1):
        with pytest.raises(InvalidInputError, match="keypoints0"):
            runtime.infer(handles["matcher"], inputs(n, low[1]))


def test_each_written_file_is_announced(tmp_path: Path) -> None:
    written: list[Path] = []
    models = write_models(tmp_path / "new" / "folder", "onnx_trt_ep", written.append)
    assert written == list(models.values())
    assert [path.name for path in written] == ["backbone.onnx", "extractor.onnx", "matcher.onnx", "refiner.onnx"]


def test_writing_again_gives_the_same_files(tmp_path: Path) -> None:
    once = {name: path.read_bytes() for name, path in write_models(tmp_path, "onnx_trt_ep").items()}
    again = {name: path.read_bytes() for name, path in write_models(tmp_path, "onnx_trt_ep").items()}
    assert once == again


@pytest.mark.torch
def test_a_program_does_not_say_where_its_source_code_lies(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch comes with the extra `torch`")
    here = str(ROOT).encode()
    for path in write_models(tmp_path, "pytorch_fp16").values():
        with zipfile.ZipFile(path) as archive:
            assert [name for name in archive.namelist() if here in archive.read(name)] == []


def test_a_folder_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match="taken"):
        write_models(tmp_path / "taken", "onnx_trt_ep")


def test_pytorch_models_are_refused_where_torch_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.demo.packages.find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(ConfigError, match=r"needs torch.*extra torch"):
        model_files.write_models(tmp_path / "models", "pytorch_fp16")
    assert not (tmp_path / "models").exists()
