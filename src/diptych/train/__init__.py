"""Training: the function `fit`, optimizers, schedules, averages of weights."""

from diptych.train.averaging import EMA, AnnealSWA, JumpSWA
from diptych.train.fit import FitResult, fit
from diptych.train.optim import HFAdamW, OptimizerFactory, adam, adamw, bert_adam, hf_adamw, paddle_adam, sgd
from diptych.train.schedules import Plateau, Schedule, constant, cosine, linear, plateau, steps, triangle
from diptych.train.trainer import Trainer

__all__ = [
    "EMA",
    "AnnealSWA",
    "FitResult",
    "HFAdamW",
    "JumpSWA",
    "OptimizerFactory",
    "Plateau",
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
    "plateau",
    "sgd",
    "steps",
    "triangle",
]
