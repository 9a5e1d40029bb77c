"""A builder without compilers, for tests of everything that stands on provisioning: real files, made-up engines.

provision(plan, progress=print, builder=FakeBuilder())
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping

from messages import C7Error, EngineBuildError, TensorSpec
from runtimes.config import C7InferenceConfig
from runtimes.fake_calibrator import calibrated_engine
from runtimes.fake_runtime import FAKE_HOST
from runtimes.inference_runtime import EngineCacheEntry, HostTuple
from runtimes.measurements import AccuracyRecord, MemoryUse, OutputError, PowerMode
from runtimes.provisioning.build_child import Heartbeat
from runtimes.provisioning.build_request import BuildEngine, EngineBuilt, RuntimeProbed
from runtimes.samples import Samples
from runtimes.source_model import read_source
from runtimes.store.disk import DISK, Disk
from runtimes.store.engine_artifact import artifact_files, calibration_path
from runtimes.store.engine_filename import EngineFilenameSchema
from runtimes.store.engine_store import store_errors
from runtimes.store.engine_writer import BuiltEngine, sign_off, write_engine

_REQUESTS_KEPT = 1000


class FakeBuilder:
    """Builds any readable source in this process, as a runtime of this label on this host would, and signs it off.

    `faults` are raised for a model instead of building it, until they are removed. `error` is what the accuracy
    records say, `inputs` what every engine takes (int8 is calibrated on them). Any thread may use it.
    """

    def __init__(
        self,
        *,
        label: str = "fake",
        host: HostTuple = FAKE_HOST,
        power: PowerMode | None = None,
        inputs: Mapping[str, TensorSpec] | None = None,
        error: float = 0.0,
        disk: Disk = DISK,
    ) -> None:
        self.label = label
        self.host = host
        self.power = power
        self.inputs = dict(inputs or {})
        self.error = error
        self.faults: dict[str, C7Error] = {}
        self._disk = disk
        self._lock = threading.Lock()
        self._requests: deque[BuildEngine] = deque(maxlen=_REQUESTS_KEPT)

    @property
    def requests(self) -> tuple[BuildEngine, ...]:
        """What was asked for, oldest first; the newest thousand."""
        return tuple(self._requests)

    def probe(self, config: C7InferenceConfig) -> RuntimeProbed:  # noqa: ARG002 - the signature is Builder's
        return RuntimeProbed(self.label, self.host)

    def build(
        self,
        request: BuildEngine,
        *,
        timeout_s: float,  # noqa: ARG002 - the signature is Builder's
        heartbeat: Heartbeat,  # noqa: ARG002
    ) -> EngineBuilt:
        with self._lock:
            self._requests.append(request)
        if request.model in self.faults:
            raise self.faults[request.model]
        signed_off = self._sign_off(request, self._compile(request))
        with store_errors(request.directory, "written"):
            for path in artifact_files(signed_off):
                self._disk.replace(path, request.directory / path.name)
        return EngineBuilt(signed_off.path.name)

    def _compile(self, request: BuildEngine) -> EngineCacheEntry:
        source = read_source(request.source, suffix=request.source.suffix)
        if source.sha256 != request.source_sha256:
            raise EngineBuildError(
                f"{request.source}: the source changed: expected sha256 {request.source_sha256}, found {source.sha256}"
            )
        folder = request.scratch / "engines"
        built = BuiltEngine(data=b"c7 fake engine\n" + source.data, inputs=self.inputs, outputs={}, build_tool="fake")
        with store_errors(request.scratch, "written"):
            self._disk.make_folder(folder)
            if request.build_config.precision == "int8":
                name = EngineFilenameSchema.for_host(request.model, self.host, "int8").format()
                cache = calibration_path(folder / name)
                if request.calibration_cache is not None:
                    self._disk.write_new_file(cache, request.calibration_cache.read_bytes())
                built, _ = calibrated_engine(built, source, request.build_config, cache)
        return write_engine(
            folder,
            request.model,
            source,
            built,
            request.build_config,
            self.label,
            self.host,
            1,
            room_bytes=request.room_bytes,
            disk=self._disk,
        )

    def _sign_off(self, request: BuildEngine, entry: EngineCacheEntry) -> EngineCacheEntry:
        return sign_off(
            entry,
            self_test=b"known answers",
            power=self.power,
            memory=MemoryUse(load_bytes=entry.engine_size_bytes, run_bytes=0),
            accuracy=AccuracyRecord(
                reference="fake",
                samples_sha256=None if request.samples is None else Samples.open(request.samples).sha256,
                sample_count=1,
                outputs={"y": OutputError(relative_rms=self.error, max_abs=self.error)},
            ),
            room_bytes=request.room_bytes,
            disk=self._disk,
        )
