"""Inputs made up for an engine, where nobody has given any: seeded, in range, of one of the profile's shapes."""

from __future__ import annotations

from typing import Literal

import numpy as np

from messages import ConfigError, TensorSpec
from runtimes.inference_runtime import EngineCacheEntry

Extreme = Literal["min", "opt", "max"]


def sample_inputs(entry: EngineCacheEntry, seed: int = 0, at: Extreme = "opt") -> dict[str, np.ndarray]:
    """One array per input: uniform in [0, 1) for floats, zeros for integers and booleans (they are often indices).

    `at` is which of the profile's shapes dynamic inputs get. Raises ConfigError where an input has a dynamic dimension
    and no profile says how large it is in flight.
    """
    random = np.random.default_rng(seed)
    shapes = {
        name: {"min": low, "opt": opt, "max": high}[at]
        for name, low, opt, high in entry.build_config.optimization_profiles
    }
    return {name: _sample(entry.model, name, spec, shapes.get(name), random) for name, spec in entry.inputs.items()}


def _sample(
    model: str, name: str, spec: TensorSpec, of_profile: tuple[int, ...] | None, random: np.random.Generator
) -> np.ndarray:
    shape = of_profile if of_profile is not None else spec.shape
    if min(shape, default=0) < 0:
        raise ConfigError(
            f"{model}: input {name} is {spec} and no profile gives its shape; add [models.{model}.profiles.{name}]"
        )
    if spec.dtype.startswith("float"):
        return random.random(shape).astype(spec.dtype)
    return np.zeros(shape, spec.dtype)
