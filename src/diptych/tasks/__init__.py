"""Forms of decision: head, loss, decoding and metric, for any model and any data set."""

from diptych.tasks.base import Task
from diptych.tasks.classify import Classify, ClassIndex
from diptych.tasks.pretrain import Pretrain

__all__ = ["ClassIndex", "Classify", "Pretrain", "Task"]
