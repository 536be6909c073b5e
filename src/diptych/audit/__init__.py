"""Audits of data sets, and of scores on them: what can be believed.

    found = audit(root, find_data(root), predictions=[...], runs=[...])
    found.findings                                            the gravest first

Copies across splits, confounders, blind baselines, the ceiling that label noise sets, looks at a split.


    found = robust(predictor, dataset)
    found.attacks                                             AUROC and flipped answers when memes are changed
"""

from diptych.audit.audit import Audit, Contract, audit
from diptych.audit.blind import Baseline
from diptych.audit.judged import Judged
from diptych.audit.looks import Looks, RunFolder, find_runs, read_run
from diptych.audit.noise import Ceiling
from diptych.audit.robust import Attacked, Robustness, robust
from diptych.audit.twins import Confounded, Overlap

__all__ = [
    "Attacked",
    "Audit",
    "Baseline",
    "Ceiling",
    "Confounded",
    "Contract",
    "Judged",
    "Looks",
    "Overlap",
    "Robustness",
    "RunFolder",
    "audit",
    "find_runs",
    "read_run",
    "robust",
]
