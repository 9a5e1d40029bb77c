"""What lives: engines under supervision, the client of them, and the flight process."""

from actors.client import InferenceClient
from actors.durations import DurationHistogram
from actors.ledger import ModelStatistics, ModelTally
from actors.pending import Pending
from actors.restart import RestartPolicy
from actors.supervision import Supervision, supervise
from actors.thermal_feed import ThermalSubscription

__all__ = [
    "DurationHistogram",
    "InferenceClient",
    "ModelStatistics",
    "ModelTally",
    "Pending",
    "RestartPolicy",
    "Supervision",
    "ThermalSubscription",
    "supervise",
]
