"""Benchmarks: each file owns the official formats of one of them."""

from diptych.datasets.hateful_memes import HatefulMemes

__all__ = ["HatefulMemes"]
