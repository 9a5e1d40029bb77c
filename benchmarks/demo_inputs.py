"""The demonstration's four models with a profile for each, and what they are given: its own pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from actors.demo.engines import FLIGHT_S
from actors.demo.frames import MovingWindow
from actors.demo.model_files import write_models
from actors.demo.networks import SIZES
from actors.demo.plan import write_flight_plan
from actors.perception.features import Features
from actors.perception.pictures import to_grey_patch, to_image
from messages import TensorSpec
from runtimes import BuildConfig, read_flight_plan
from runtimes.inference_runtime import Precision
from runtimes.sign_off.reference import Reference, open_reference
from runtimes.source_model import SourceModel, read_source

Arrays = dict[str, np.ndarray]
_SIZES = SIZES["tensorrt"]


class DemoInputs:
    """`models` are the files by name, all in `folder`, which is filled here. `count` inputs of each model are made."""

    def __init__(self, folder: Path, count: int) -> None:
        """Raises ConfigError where a package of the demonstration is missing."""
        self._folder = folder
        self.models: Mapping[str, Path] = write_models(folder / "models", "tensorrt")
        plan = write_flight_plan(folder, runtime="tensorrt", models=self.models, flight_s=FLIGHT_S)
        self._sections = read_flight_plan(plan).models
        self._references: dict[str, Reference] = {}
        self._made: dict[str, list[Arrays]] = {name: [] for name in self.models}
        frames, last = MovingWindow(), None
        for index in range(count + 1):
            picture = frames.read(index * frames.lap_frames // (count + 1))
            patch = to_grey_patch(picture, _spec(1, _SIZES.refiner.image_px))
            image = {"image": to_image(picture, _spec(3, _SIZES.extractor.image_px))}
            features = Features.of(self.reference("extractor").run(image))
            if last is not None:
                self._made["backbone"].append({"image": to_image(picture, _spec(3, _SIZES.backbone.image_px))})
                self._made["extractor"].append(image)
                self._made["matcher"].append(_pair(last[0], features, _SIZES.rerank_keypoints))
                viewpoint = np.array([index % _SIZES.refiner.viewpoints])
                self._made["refiner"].append({"query": patch, "reference": last[1], "viewpoint": viewpoint})
            last = features, patch

    def source(self, model: str) -> SourceModel:
        return read_source(self.models[model], suffix=".onnx")

    def reference(self, model: str) -> Reference:
        if model not in self._references:
            self._references[model] = open_reference(self.source(model), threads=1)
        return self._references[model]

    def build_config(self, model: str, precision: Precision) -> BuildConfig:
        """As the demonstration's plan has it. int8 is calibrated on all inputs of the model, a batch each."""
        profile = self._sections[model].build_config().optimization_profiles
        dataset = self._dataset(model) if precision == "int8" else None
        return BuildConfig(precision=precision, optimization_profiles=profile, calibration_dataset=dataset)

    def inputs(self, model: str) -> list[Arrays]:
        return self._made[model]

    def answers(self, model: str, count: int) -> Iterator[tuple[Arrays, Arrays]]:
        """(inputs, what the fp32 reference makes of them), for the first `count` inputs."""
        for inputs in self._made[model][:count]:
            yield inputs, self.reference(model).run(inputs)

    def _dataset(self, model: str) -> Path:
        folder = self._folder / "calibration" / model
        if not folder.exists():
            folder.mkdir(parents=True)
            for index, arrays in enumerate(self._made[model]):
                np.savez(folder / f"{index:04}.npz", **arrays)  # type: ignore[arg-type]
        return folder


def _spec(channels: int, side_px: int) -> TensorSpec:
    return TensorSpec((1, channels, side_px, side_px), "float32")


def _pair(before: Features, now: Features, keypoints: int) -> Arrays:
    """At the profile's usual shape; a picture with fewer keypoints has its own again."""
    arrays: Arrays = {}
    for side, features in enumerate((now, before)):
        for kind, found in (("keypoints", features.keypoints), ("descriptors", features.descriptors)):
            arrays[f"{kind}{side}"] = np.ascontiguousarray(np.resize(found, (1, keypoints, found.shape[2])))
    return arrays
