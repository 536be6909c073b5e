"""Many runs as one: members by splits to predictions, family averages and a blend."""

from diptych.study.card import measure, write_card
from diptych.study.graph import Graph, Planner, Step, plan, wrap_up
from diptych.study.progress import Checksums, Record, require_own
from diptych.study.run import Options, Report, publish, records_of, run_study
from diptych.study.score import Opinion, found_in, places_of, score_meme, write_members
from diptych.study.settings import Study, read_study

__all__ = [
    "Checksums",
    "Graph",
    "Opinion",
    "Options",
    "Planner",
    "Record",
    "Report",
    "Step",
    "Study",
    "found_in",
    "measure",
    "places_of",
    "plan",
    "publish",
    "read_study",
    "records_of",
    "require_own",
    "run_study",
    "score_meme",
    "wrap_up",
    "write_card",
    "write_members",
]
