"""Why a model answers as it does: what each word and region adds, and where its attention looks."""

from diptych.explain.attention import ExampleMaps, MapLayer, PairMaps, explain_attention, pair_maps
from diptych.explain.changes import hidden, smallest_change, swaps
from diptych.explain.document import explanation, schema
from diptych.explain.evidence import (
    MASKING,
    Budget,
    Change,
    Evidence,
    Variants,
    evidence_of,
    explain,
    log_odds,
    probability,
)
from diptych.explain.export import export_maps
from diptych.explain.grouping import grouped
from diptych.explain.places import Place, region_words
from diptych.explain.players import Player, grouped_boxes, hide, overlap
from diptych.explain.relevance import Relevance, raw_attention, relevance, rollout
from diptych.explain.shapley import Shapley, draw_orders, exact_shapley, sampled_shapley, shapley, text_share

__all__ = [
    "MASKING",
    "Budget",
    "Change",
    "Evidence",
    "ExampleMaps",
    "MapLayer",
    "PairMaps",
    "Place",
    "Player",
    "Relevance",
    "Shapley",
    "Variants",
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
    "log_odds",
    "overlap",
    "pair_maps",
    "probability",
    "raw_attention",
    "region_words",
    "relevance",
    "rollout",
    "sampled_shapley",
    "schema",
    "shapley",
    "smallest_change",
    "swaps",
    "text_share",
]
