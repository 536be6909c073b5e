"""Training: the function `fit`, optimizers, schedules, averages of weights."""

from diptych.train.averaging import EMA, AnnealSWA, JumpSWA
from diptych.train.fit import FitResult, fit
from diptych.train.optim import HFAdamW, OptimizerFactory, adam, adamw, bert_adam, hf_adamw, paddle_adam
from diptych.train.schedules import Schedule, constant, cosine, linear, steps, triangle
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
    "bert_adam",
    "constant",
    "cosine",
    "fit",
    "hf_adamw",
    "linear",
    "paddle_adam",
    "steps",
    "triangle",
]
