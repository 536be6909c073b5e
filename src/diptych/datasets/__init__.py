"""Data sets: each file or folder owns the official formats of one of them."""

from diptych.datasets.base import Split
from diptych.datasets.catalog import (
    Data,
    WorldReport,
    data_names,
    fabricate,
    find_data,
    named_data,
    open_split,
    split_class,
)
from diptych.datasets.coco_captions import CocoCaptions
from diptych.datasets.conceptual_captions import ConceptualCaptions
from diptych.datasets.corpus import Corpus
from diptych.datasets.emoji import Emoji
from diptych.datasets.examples import ExampleTable
from diptych.datasets.flickr30k import Flickr30k
from diptych.datasets.gqa import Gqa
from diptych.datasets.hateful_memes import HatefulMemes
from diptych.datasets.mix import Mix
from diptych.datasets.mlt import Mlt
from diptych.datasets.multi30k import Multi30k
from diptych.datasets.nlvr2 import Nlvr2
from diptych.datasets.refcoco import RefCoco
from diptych.datasets.table import Guess, Table, guess_table
from diptych.datasets.vcr import Vcr
from diptych.datasets.vqa import Vqa

__all__ = [
    "CocoCaptions",
    "ConceptualCaptions",
    "Corpus",
    "Data",
    "Emoji",
    "ExampleTable",
    "Flickr30k",
    "Gqa",
    "Guess",
    "HatefulMemes",
    "Mix",
    "Mlt",
    "Multi30k",
    "Nlvr2",
    "RefCoco",
    "Split",
    "Table",
    "Vcr",
    "Vqa",
    "WorldReport",
    "data_names",
    "fabricate",
    "find_data",
    "guess_table",
    "named_data",
    "open_split",
    "split_class",
]
