"""What runs a model: the interface, its strategies, and the engine artefacts they are bound to."""

from runtimes.available_memory import AvailableMemory, read_available_memory
from runtimes.config import C7InferenceConfig, TensorrtSection
from runtimes.doctor import RuntimeAvailability, doctor_runtimes
from runtimes.fake_runtime import FakeRuntime
from runtimes.fake_steps import (
    blocks_until,
    computes,
    fails_to_load,
    hangs,
    hangs_at_load,
    loads,
    loads_after,
    raises,
    returns,
    takes_ms,
)
from runtimes.flight_plan import FlightPlan, ModelSection
from runtimes.flight_plan_file import read_flight_plan
from runtimes.host import detect_host, host_differences
from runtimes.inference_factory import build_inference_runtime
from runtimes.inference_runtime import (
    BuildConfig,
    EngineCacheEntry,
    EngineHandle,
    HostTuple,
    InferenceRuntime,
    SuspendsEngines,
)
from runtimes.onnx_trt_ep_runtime import OnnxTrtEpRuntime
from runtimes.provisioning.builder import Builder
from runtimes.provisioning.fake_builder import FakeBuilder
from runtimes.provisioning.provision import ProvisionProgress, provision
from runtimes.pytorch_fp16_runtime import PytorchFp16Runtime
from runtimes.sample_inputs import sample_inputs
from runtimes.samples import Samples
from runtimes.store.durable_files import write_atomically
from runtimes.store.engine_artifact import read_engine, read_entry
from runtimes.store.engine_filename import EngineFilenameSchema
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.engine_writer import BuiltEngine, write_engine
from runtimes.store.sha256_sidecar import Sha256Sidecar, read_with_sidecar, write_with_sidecar
from runtimes.takeoff_load import deserialize_cached_engine, outdated_models
from runtimes.tensorrt_runtime import TensorrtRuntime

__all__ = [
    "AvailableMemory",
    "BuildConfig",
    "Builder",
    "BuiltEngine",
    "C7InferenceConfig",
    "EngineCacheEntry",
    "EngineFilenameSchema",
    "EngineHandle",
    "EngineStore",
    "FakeBuilder",
    "FakeRuntime",
    "FlightPlan",
    "Generation",
    "HostTuple",
    "InferenceRuntime",
    "ModelSection",
    "OnnxTrtEpRuntime",
    "ProvisionProgress",
    "PytorchFp16Runtime",
    "RuntimeAvailability",
    "Samples",
    "Sha256Sidecar",
    "SuspendsEngines",
    "TensorrtRuntime",
    "TensorrtSection",
    "blocks_until",
    "build_inference_runtime",
    "computes",
    "deserialize_cached_engine",
    "detect_host",
    "doctor_runtimes",
    "fails_to_load",
    "hangs",
    "hangs_at_load",
    "host_differences",
    "loads",
    "loads_after",
    "outdated_models",
    "provision",
    "raises",
    "read_available_memory",
    "read_engine",
    "read_entry",
    "read_flight_plan",
    "read_with_sidecar",
    "returns",
    "sample_inputs",
    "takes_ms",
    "write_atomically",
    "write_engine",
    "write_with_sidecar",
]
