"""Why a model answers as it does: its attention maps, with the name of every position."""

from diptych.explain.attention import ExampleMaps, MapLayer, PairMaps, explain_attention, pair_maps
from diptych.explain.export import export_maps
from diptych.explain.grouping import grouped
from diptych.explain.places import Place, region_words

__all__ = [
    "ExampleMaps",
    "MapLayer",
    "PairMaps",
    "Place",
    "explain_attention",
    "export_maps",
    "grouped",
    "pair_maps",
    "region_words",
]
