"""Why a model answers as it does: what each word and region adds, and where its attention looks."""

from diptych.explain.attention import ExampleMaps, MapLayer, PairMaps, explain_attention, pair_maps
from diptych.explain.changes import hidden, smallest_change, swaps
from diptych.explain.checked import Checked, Share, check
from diptych.explain.checks import (
    METHODS,
    SHARES,
    STAGES,
    Removal,
    rank_correlation,
    removal,
    sanity,
    shuffled,
)
from diptych.explain.document import explanation, schema
from diptych.explain.evidence import Change, Evidence, evidence_of, explain
from diptych.explain.export import export_maps
from diptych.explain.grouping import grouped
from diptych.explain.joint import JointVariants
from diptych.explain.places import Place, region_words
from diptych.explain.planted import Hits, Swaps, Truth, deciding, hits, needs_evidence, read_truth, swap_test
from diptych.explain.players import Player, grouped_boxes, hide, overlap
from diptych.explain.relevance import Relevance, raw_attention, relevance, rollout
from diptych.explain.shapley import Shapley, draw_orders, exact_shapley, sampled_shapley, shapley, text_share
from diptych.explain.variants import MASKING, Budget, Variants, Varied, log_odds, probability

__all__ = [
    "MASKING",
    "METHODS",
    "SHARES",
    "STAGES",
    "Budget",
    "Change",
    "Checked",
    "Evidence",
    "ExampleMaps",
    "Hits",
    "JointVariants",
    "MapLayer",
    "PairMaps",
    "Place",
    "Player",
    "Relevance",
    "Removal",
    "Shapley",
    "Share",
    "Swaps",
    "Truth",
    "Variants",
    "Varied",
    "check",
    "deciding",
    "draw_orders",
    "evidence_of",
    "exact_shapley",
    "explain",
    "explain_attention",
    "explanation",
    "export_maps",
    "grouped",
    "grouped_boxes",
    "hidden",
    "hide",
    "hits",
    "log_odds",
    "needs_evidence",
    "overlap",
    "pair_maps",
    "probability",
    "rank_correlation",
    "raw_attention",
    "read_truth",
    "region_words",
    "relevance",
    "removal",
    "rollout",
    "sampled_shapley",
    "sanity",
    "schema",
    "shapley",
    "shuffled",
    "smallest_change",
    "swap_test",
    "swaps",
    "text_share",
]
