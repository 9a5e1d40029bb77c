"""The components that look at frames: C2, C2.5, C3, C3.5 and C4, each small, each honest about what it did not get.

They are written against `InferenceRuntime` and know nothing of actors: whoever drives frames sets a `frame_scope`
around `on_frame`, and with it the deadline of all runs of that frame.
"""

from actors.perception.matcher import Matcher
from actors.perception.place_recognition import PlaceRecognition
from actors.perception.pose import PoseEstimation, covariance_mode
from actors.perception.refiner import Refiner
from actors.perception.reranker import ReRanker

__all__ = ["Matcher", "PlaceRecognition", "PoseEstimation", "ReRanker", "Refiner", "covariance_mode"]
