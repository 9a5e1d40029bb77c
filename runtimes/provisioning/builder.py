"""Who compiles an engine for the provisioner: a child process for each, unless a test brings its own builder."""

from __future__ import annotations

from typing import Protocol

from runtimes.config import C7InferenceConfig
from runtimes.provisioning.build_child import Heartbeat, build_engine, probe_runtime
from runtimes.provisioning.build_request import BuildEngine, EngineBuilt, RuntimeProbed


class Builder(Protocol):
    """What `provision` asks for engines. Called from the provisioner's thread, one request at a time."""

    def probe(self, config: C7InferenceConfig) -> RuntimeProbed:
        """Label and host tuple of the configured runtime on this machine. Raises C7Error."""
        ...

    def build(self, request: BuildEngine, *, timeout_s: float, heartbeat: Heartbeat) -> EngineBuilt:
        """Put one signed-off engine into `request.directory`, or nothing. Raises C7Error.

        `heartbeat` is to be called now and then.
        """
        ...


class ChildBuilder:
    """Each probe and each build in a process of its own: a crash or a full memory ends that process alone."""

    def probe(self, config: C7InferenceConfig) -> RuntimeProbed:
        return probe_runtime(config)

    def build(self, request: BuildEngine, *, timeout_s: float, heartbeat: Heartbeat) -> EngineBuilt:
        return build_engine(request, timeout_s=timeout_s, heartbeat=heartbeat)


CHILD_BUILDER: Builder = ChildBuilder()
