"""Training: one function, its settings, and what they are made of."""

from diptych.train.averaging import EMA, AnnealSWA, JumpSWA
from diptych.train.fit import FitResult, fit
from diptych.train.optim import HFAdamW, OptimizerFactory, adam, adamw, hf_adamw
from diptych.train.schedules import Schedule, constant, cosine, linear, triangle
from diptych.train.trainer import Trainer

__all__ = [
    "EMA",
    "AnnealSWA",
    "FitResult",
    "HFAdamW",
    "JumpSWA",
    "OptimizerFactory",
    "Schedule",
    "Trainer",
    "adam",
    "adamw",
    "constant",
    "cosine",
    "fit",
    "hf_adamw",
    "linear",
    "triangle",
]
