"""Building one engine with what former builds left: their calibration cache, their timings, their duration."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from messages.clock import NS_PER_S
from messages.errors import (
    C7Error,
    CalibrationCacheError,
    EngineBuildError,
    EngineDeserializeError,
    EngineStoreError,
)
from runtimes.flight_plan import FlightPlan
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.provisioning.build_child import Heartbeat
from runtimes.provisioning.build_request import BuildEngine, RuntimeProbed
from runtimes.provisioning.builder import Builder
from runtimes.provisioning.candidates import StoredEngines
from runtimes.provisioning.decision import EngineRequest, differences
from runtimes.provisioning.engine_request import calibration_data
from runtimes.provisioning.progress import ProvisionProgress, Step
from runtimes.store.engine_artifact import read_calibration, read_stored_entry
from runtimes.store.engine_store import EngineStore, store_errors
from runtimes.store.staged_generation import StagedGeneration
from runtimes.store.storage_budget import room_bytes, stored_bytes
from runtimes.store.timing_cache import TimingCache


class ModelBuild:
    """The builds of one provisioning run, under the store's lock."""

    def __init__(
        self,
        plan: FlightPlan,
        here: RuntimeProbed,
        store: EngineStore,
        staged: StagedGeneration,
        stored: StoredEngines,
        builder: Builder,
        timeout_s: float,
        progress: Callable[[ProvisionProgress], None],
    ) -> None:
        self._plan = plan
        self._here = here
        self._store = store
        self._staged = staged
        self._stored = stored
        self._builder = builder
        self._timeout_s = timeout_s
        self._progress = progress
        self._timings = TimingCache(store.root, here.label, here.host, store.disk)

    def obtain(self, request: EngineRequest) -> EngineCacheEntry:
        """Compile, check that the engine is the one asked for, and keep it for the next run should this one end.

        A calibration cache that the build does not trust is reported, and the build repeated without it. Raises the
        build's typed error, naming the model.
        """
        began_ns = time.monotonic_ns()
        try:
            entry = self._obtain(request, self._former_calibration(request))
            self._staged.keep_draft(entry)
        except C7Error as error:
            after_s = (time.monotonic_ns() - began_ns) / NS_PER_S
            raise type(error)(f"{request.model} was not compiled ({after_s:.0f} s): {error}") from error
        return entry

    def _obtain(self, request: EngineRequest, calibration: Path | None) -> EngineCacheEntry:
        try:
            return self._attempt(request, "build", calibration)
        except CalibrationCacheError as error:
            if calibration is None:
                raise
            self._tell("calibration_cache_refused", request, str(error))
        return self._attempt(request, "build-uncalibrated", None)

    def _attempt(self, request: EngineRequest, name: str, calibration: Path | None) -> EngineCacheEntry:
        section = self._plan.models[request.model]
        scratch = self._staged.scratch_folder(f"{request.model}.{name}")
        timings = scratch.with_name(f"{scratch.name}.timing")
        for reason in self._timings.check_out(timings):
            self._tell("timing_cache_dropped", request, reason)
        built = self._builder.build(
            BuildEngine(
                config=self._plan.runtime,
                model=request.model,
                source=request.source,
                source_sha256=request.source_sha256,
                build_config=request.build_config,
                directory=self._staged.directory,
                scratch=scratch,
                samples=None if section.samples is None else section.samples.absolute(),
                accuracy_tolerance=request.accuracy_tolerance,
                self_test_tolerance=section.self_test_tolerance,
                room_bytes=self._room_bytes(),
                calibration_cache=calibration,
                timing_cache=timings,
            ),
            timeout_s=self._timeout_s,
            heartbeat=self._heartbeat(request),
        )
        entry = read_stored_entry(self._staged.directory / built.engine)
        self._refuse_another(request, entry)
        if built.no_accuracy_because:
            self._tell("accuracy_not_measured", request, built.no_accuracy_because)
        self._keep_timings(request, timings)
        return entry

    def _refuse_another(self, request: EngineRequest, entry: EngineCacheEntry) -> None:
        found = differences(request, entry, self._here.host, self._here.label)
        if entry.model != request.model:
            found.insert(0, f"model: engine {entry.model}, plan {request.model}")
        if found:
            raise EngineBuildError(
                f"{entry.path.name}: the build made another engine than the one asked for: {'; '.join(found)}; leave"
                " the plan's files and the power mode alone while it is provisioned, and provision again"
            )

    def _former_calibration(self, request: EngineRequest) -> Path | None:
        """A private copy of the nearest engine's calibration cache; whether it can be trusted the build decides."""
        if calibration_data(self._plan, request.model) is None:
            return None
        for entry in self._stored.of_model(request.model):
            try:
                data = read_calibration(entry)
            except EngineDeserializeError as error:
                self._tell("calibration_cache_refused", request, str(error))
                continue
            if data is not None:
                copy = self._staged.scratch / f"{request.model}.calibration"
                with store_errors(self._store.root, "written"):
                    self._store.disk.write_new_file(copy, data)
                return copy
        return None

    def _room_bytes(self) -> int:
        """What the storage budget has left. Raises EngineStoreError before hours of building for nothing."""
        budget_mb = self._plan.flight.storage_budget_mb
        stored = stored_bytes(self._store.root, self._store.disk)
        room = room_bytes(budget_mb, stored)
        if room == 0:
            raise EngineStoreError(
                f"{self._store.root}: the storage budget is used up: {stored} bytes are stored, {budget_mb} MiB are"
                " allowed; remove old generations (c7 engines prune FLIGHT.toml) or raise [flight] storage_budget_mb"
            )
        return room

    def _keep_timings(self, request: EngineRequest, timings: Path) -> None:
        budget_mb = self._plan.flight.storage_budget_mb
        room = room_bytes(budget_mb, stored_bytes(self._store.root, self._store.disk))
        reason = self._timings.check_in(timings, room_bytes=room)
        if reason:
            self._tell("timing_cache_dropped", request, reason)

    def _heartbeat(self, request: EngineRequest) -> Heartbeat:
        former = next(self._stored.of_model(request.model), None)

        def report(elapsed_ns: int, phase: str = "") -> None:
            self._progress(
                ProvisionProgress(
                    step="compiling",
                    model=request.model,
                    elapsed_ns=elapsed_ns,
                    phase=phase,
                    former_build_ns=None if former is None else former.build_ns,
                )
            )

        report(0)
        return report

    def _tell(self, step: Step, request: EngineRequest, reason: str) -> None:
        self._progress(ProvisionProgress(step=step, model=request.model, reason=reason))
