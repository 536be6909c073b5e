"""Predictions and gold to numbers that say how far they can be trusted.

    evaluation = evaluate(predictions, gold)             how good are they?
    comparison = compare(first, second, gold)            is the first better on the same examples?

Both join on ids and give plain JSON values and the cells of tables. Each form of decision has a file that
says how it is measured.
"""

from diptych.evaluate.binary import Binary
from diptych.evaluate.form import Form, Options
from diptych.evaluate.measuring import FORMS, compare, evaluate, join
from diptych.evaluate.results import Cells, Comparison, Difference, Estimate, Evaluation, GroupEstimate

__all__ = [
    "FORMS",
    "Binary",
    "Cells",
    "Comparison",
    "Difference",
    "Estimate",
    "Evaluation",
    "Form",
    "GroupEstimate",
    "Options",
    "compare",
    "evaluate",
    "join",
]
