"""A runtime without models, for tests of everything that stands on a runtime: its results and faults are scripted.

    fake = FakeRuntime({"lightglue": [returns(MATCHES), raises(InferenceError("716")), returns(MATCHES)]})
    handle = fake.deserialize_engine(fake.entry("lightglue"))

It passes the same contract tests as the real runtimes.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from messages import (
    Clock,
    EngineBuildError,
    EngineDeserializeError,
    InferenceError,
    MonotonicClock,
    Tensor,
    TensorSpec,
    ThermalFeed,
    ThermalState,
    specs_of,
)
from runtimes.fake_calibrator import calibrated_engine
from runtimes.fake_entry import FAKE_HOST, entry_in_memory, fake_host
from runtimes.fake_stage import Stage, ThreadWaits
from runtimes.fake_steps import Step
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry, EngineHandle
from runtimes.no_thermal_feed import NoThermalFeed
from runtimes.resident_engines import ResidentEngines
from runtimes.source_model import read_source
from runtimes.store.engine_artifact import ReadEngine, calibration_path, read_engine, read_verified
from runtimes.store.engine_filename import EngineFilenameSchema
from runtimes.store.engine_writer import BuiltEngine, write_engine
from runtimes.tensor_check import check_inputs, check_profile, check_tensors

__all__ = ["FAKE_HOST", "FakeCall", "FakeHandle", "FakeRuntime", "Step"]

CALLS_KEPT = 10_000
_WHOLE = ("", 0)
"""The key under which all engines together are counted."""


class FakeCall(NamedTuple):
    """One run that began: which model, on which of its loads (from 1), with what inputs."""

    model: str
    load: int
    inputs: dict[str, TensorSpec]


class FakeHandle:
    """A loaded engine of a FakeRuntime. `load` counts the loads of its model from 1."""

    def __init__(self, entry: EngineCacheEntry, load: int) -> None:
        self.entry = entry
        self.load = load


class FakeRuntime:
    """Plays one script per model: a step, or a sequence of steps taken in order of which the last repeats.

    A script belongs to the model, not to a load: it goes on where it was when the engine is restarted. `inputs`
    gives the inputs of a model that are to be checked like a real engine's; a model without takes any tensors.
    Engines are compiled into `engine_dir`, by default a folder `engines` beside the source; for int8 they are
    calibrated on their dataset. Callable from any thread.
    """

    def __init__(
        self,
        scripts: Mapping[str, Step | Sequence[Step]],
        *,
        inputs: Mapping[str, Mapping[str, TensorSpec]] | None = None,
        thermal: ThermalFeed | None = None,
        label: str = "fake",
        clock: Clock | None = None,
        engine_dir: Path | None = None,
        read: ReadEngine = read_verified,
    ) -> None:
        self._scripts = {name: [steps] if isinstance(steps, Step) else list(steps) for name, steps in scripts.items()}
        empty = [name for name, steps in self._scripts.items() if not steps]
        if empty:
            raise ValueError(f"expected at least one step in a script, found none for {', '.join(empty)}")
        for name, steps in self._scripts.items():
            for step in steps:
                if not isinstance(step, Step):
                    raise TypeError(f"{name}: expected steps such as returns(outputs), found {step!r:.80}")
        self._inputs = {} if inputs is None else {name: dict(specs) for name, specs in inputs.items()}
        self._thermal = thermal if thermal is not None else NoThermalFeed()
        self._label = label
        self._clock = clock if clock is not None else MonotonicClock()
        self.stage = Stage(ThreadWaits(self._clock))
        self._engine_dir = engine_dir
        self._read = read
        self._resident: ResidentEngines[FakeHandle] = ResidentEngines()
        self._lock = threading.Lock()
        self._position: Counter[str] = Counter()
        self._loads: Counter[str] = Counter()
        self._resumes: Counter[str] = Counter()
        self._running: Counter[tuple[str, int]] = Counter()
        self._peak: Counter[tuple[str, int]] = Counter()
        self._calibrated: Counter[str] = Counter()
        self._calls: deque[FakeCall] = deque(maxlen=CALLS_KEPT)
        self._host = fake_host(label)
        self._in_memory = {
            name: entry_in_memory(name, label, self._inputs.get(name, {}), self._known_outputs(name))
            for name in self._scripts
        }

    # What tests look at.

    @property
    def calls(self) -> tuple[FakeCall, ...]:
        """The runs that began, oldest first; the newest CALLS_KEPT of them."""
        return tuple(self._calls)

    @property
    def loaded(self) -> tuple[str, ...]:
        """The models that are loaded now, by name; one that is loaded twice is there twice."""
        return self._resident.models()

    def loads(self, model: str) -> int:
        """How often the model was loaded from its file with success."""
        return self._loads[model]

    def resumes(self, model: str) -> int:
        """How often the model was resumed with success."""
        return self._resumes[model]

    def calibration_batches(self, model: str) -> int:
        """How many batches the model was calibrated on, over all compilations; a trusted cache spares them."""
        return self._calibrated[model]

    def peak_concurrency(self, model: str | None = None) -> int:
        """Most runs that were under way at once: on one handle of the model, or on the whole runtime."""
        with self._lock:
            if model is None:
                return self._peak[_WHOLE]
            return max((peak for (name, _), peak in self._peak.items() if name == model), default=0)

    def entry(self, model: str) -> EngineCacheEntry:
        """An engine of this model that needs no file: only this runtime loads it."""
        return self._in_memory[model]

    def entries(self) -> dict[str, EngineCacheEntry]:
        """`entry` for every model that has a script."""
        return dict(self._in_memory)

    def release_hung(self) -> None:
        """What hangs returns, now and from here on: a late result."""
        self.stage.release_hung()

    # The interface.

    def compile_engine(self, model_path: Path, build_config: BuildConfig) -> EngineCacheEntry:
        """Write a real engine artefact of any file whose stem is a model with a script.

        For int8 a calibration cache that lies where the engine's will lie is taken where it can be trusted; raises
        CalibrationCacheError where it cannot, and calibrates anew once it is gone.
        """
        self._resident.refuse_compile(model_path)
        model = model_path.stem
        if model not in self._scripts:
            raise EngineBuildError(f"{model_path}: no script for model {model}; there are {', '.join(self._scripts)}")
        source = read_source(model_path, suffix=model_path.suffix)
        began_ns = self._clock.monotonic_ns()
        inputs = self._inputs.get(model, {})
        check_profile(model, inputs, build_config.optimization_profiles)
        directory = self._engine_dir if self._engine_dir is not None else model_path.parent / "engines"
        built = BuiltEngine(
            data=b"c7 fake engine\n" + source.data,
            inputs=inputs,
            outputs=self._known_outputs(model),
            build_tool="fake",
        )
        if build_config.precision == "int8":
            name = EngineFilenameSchema.for_host(model, self._host, build_config.precision).format()
            built, batches_run = calibrated_engine(built, source, build_config, calibration_path(directory / name))
            with self._lock:
                self._calibrated[model] += batches_run
        return write_engine(
            directory,
            model,
            source,
            built,
            build_config,
            self._label,
            self._host,
            self._clock.monotonic_ns() - began_ns,
        )

    def deserialize_engine(self, entry: EngineCacheEntry) -> FakeHandle:
        if self._in_memory.get(entry.model) != entry:
            read_engine(entry, runtime_label=self._label, host=self._host, read=self._read)
        if entry.model not in self._scripts:
            raise EngineDeserializeError(
                f"{entry.model}: no script for this model; there are {', '.join(self._scripts)}"
            )
        self._play_load(entry.model)
        with self._lock:
            self._loads[entry.model] += 1
            load = self._loads[entry.model]
        return self._resident.admit(FakeHandle(entry, load))

    def suspend_engine(self, handle: EngineHandle) -> None:
        self._resident.suspend(handle)

    def resume_engine(self, handle: EngineHandle) -> FakeHandle:
        """What the script has for the next load happens here too. The new handle is of the same load."""
        return self._resident.resume(handle, self._resumed)

    def infer(self, handle: EngineHandle, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        engine = self._resident.require(handle)
        model = engine.entry.model
        if model in self._inputs:
            check_inputs(model, self._inputs[model], engine.entry.build_config.optimization_profiles, inputs)
        else:
            check_tensors(model, inputs)
        with self._counted(engine):
            self._calls.append(FakeCall(model, engine.load, specs_of(inputs)))
            step = self._take(model, at_load=False)
            if step is None:
                raise InferenceError(f"{model}: the script expected a load here, found a run")
            return step.play(inputs, self.stage)

    def release_engine(self, handle: EngineHandle) -> None:
        self._resident.dismiss(handle)

    def thermal_state(self) -> ThermalState:
        return self._thermal.thermal_state()

    def current_runtime_label(self) -> str:
        return self._label

    def _resumed(self, suspended: FakeHandle) -> FakeHandle:
        model = suspended.entry.model
        self._play_load(model)
        with self._lock:
            self._resumes[model] += 1
        return FakeHandle(suspended.entry, suspended.load)

    def _play_load(self, model: str) -> None:
        step = self._take(model, at_load=True)
        if step is not None:
            step.play({}, self.stage)

    def _take(self, model: str, *, at_load: bool) -> Step | None:
        """The next step, where it is of that kind; the last one of a script is never used up."""
        steps = self._scripts[model]
        with self._lock:
            step = steps[self._position[model]]
            if step.at_load != at_load:
                return None
            self._position[model] = min(self._position[model] + 1, len(steps) - 1)
        return step

    @contextmanager
    def _counted(self, engine: FakeHandle) -> Iterator[None]:
        keys = (_WHOLE, (engine.entry.model, engine.load))
        with self._lock:
            for key in keys:
                self._running[key] += 1
                self._peak[key] = max(self._peak[key], self._running[key])
        try:
            yield
        finally:
            with self._lock:
                self._running.subtract(keys)

    def _known_outputs(self, model: str) -> dict[str, TensorSpec]:
        known = (specs_of(step.outputs) for step in self._scripts[model] if step.outputs is not None)
        return next(known, {})
