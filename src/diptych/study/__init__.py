"""Studies: train many members, average them by family, and blend the averages, as one resumable call."""

from diptych.study.blended import StudyBlend
from diptych.study.call import Call, run_study, study_status
from diptych.study.graph import Graph, Planner, Step, plan, wrap_up
from diptych.study.progress import Checksums, StepRecord
from diptych.study.run import Options, Report, records_of
from diptych.study.score import (
    Tree,
    averaged,
    dev_of,
    extractions,
    found_in,
    is_study,
    model_of,
    places_of,
    read_tree,
    score_meme,
    tokenizer_of,
)
from diptych.study.settings import Study, find_study, read_study

__all__ = [
    "Call",
    "Checksums",
    "Graph",
    "Options",
    "Planner",
    "Report",
    "Step",
    "StepRecord",
    "Study",
    "StudyBlend",
    "Tree",
    "averaged",
    "dev_of",
    "extractions",
    "find_study",
    "found_in",
    "is_study",
    "model_of",
    "places_of",
    "plan",
    "read_study",
    "read_tree",
    "records_of",
    "run_study",
    "score_meme",
    "study_status",
    "tokenizer_of",
    "wrap_up",
]
