"""What lives: engines under supervision, the client of them, and the flight process."""

from actors.client import InferenceClient
from actors.durations import DurationHistogram
from actors.frame_scope import frame_scope
from actors.ledger import ModelStatistics, ModelTally
from actors.pending import Pending
from actors.restart import RestartPolicy
from actors.supervised_runtime import SupervisedRuntime
from actors.supervision import Supervision
from actors.takeoff import supervise
from actors.thermal_feed import ThermalSubscription

__all__ = [
    "DurationHistogram",
    "InferenceClient",
    "ModelStatistics",
    "ModelTally",
    "Pending",
    "RestartPolicy",
    "SupervisedRuntime",
    "Supervision",
    "ThermalSubscription",
    "frame_scope",
    "supervise",
]
