"""Distributed execution with Ray, with the same bytes as result as in a single process.

`replicas`, for the service, needs Ray Serve and is imported on its own.
"""

from diptych.scale.ray import ray_engine
from diptych.scale.shards import predict_split

__all__ = ["predict_split", "ray_engine"]
