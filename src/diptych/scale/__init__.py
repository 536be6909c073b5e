"""Many machines: the functions that run here, run by Ray, with the same bytes as result."""

from diptych.scale.ray import ray_engine
from diptych.scale.shards import predict_split

__all__ = ["predict_split", "ray_engine"]
