"""Evaluation of predictions against gold targets, with confidence intervals and significance tests.

    evaluation = evaluate(predictions, gold)             how good are they?
    comparison = compare(first, second, gold)            is the first better on the same examples?
    cases = changed_cases(first, second, dataset)        which ones does the second answer better, or worse?
    repeats = repeated({"a": [...], "b": [...]}, gold)   is it the recipe, or the seed?

All join on ids; the results of the first two convert to JSON values and to tables. Each form of decision has
a module that defines its measures.
"""

from diptych.evaluate.binary import Binary
from diptych.evaluate.cases import Case, changed_cases
from diptych.evaluate.form import Form, Options
from diptych.evaluate.measuring import FORMS, compare, evaluate, with_targets
from diptych.evaluate.repeats import Contrast, Repeated, Repeats, repeated
from diptych.evaluate.results import Cells, Comparison, Difference, Estimate, Evaluation, GroupEstimate

__all__ = [
    "FORMS",
    "Binary",
    "Case",
    "Cells",
    "Comparison",
    "Contrast",
    "Difference",
    "Estimate",
    "Evaluation",
    "Form",
    "GroupEstimate",
    "Options",
    "Repeated",
    "Repeats",
    "changed_cases",
    "compare",
    "evaluate",
    "repeated",
    "with_targets",
]
