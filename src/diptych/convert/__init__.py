"""Conversion of third-party weight files to models and bundles, and back to their original names.

Each family of models has a table of rules, and one engine applies the tables and accounts for every name. The
package is a layer above `bundle`, because it writes bundles.
"""

from diptych.convert.bundles import convert_checkpoint, inspect_checkpoint, restore_checkpoint
from diptych.convert.detector import fill_detector
from diptych.convert.encoders import pair_encoders
from diptych.convert.families import (
    FAMILIES,
    fill_model,
    load_model,
    load_parts,
    load_region_encoder,
    load_towers,
)
from diptych.convert.family import Family, Head, RecognizedCheckpoint
from diptych.convert.fetch import checkpoints, download, fetch_listed, fetchable, find
from diptych.convert.load import Source, read_source, read_weights
from diptych.convert.lxmert import load_text_encoder, transfer_answers
from diptych.convert.mobilenet import load_mobilenet
from diptych.convert.paddle import read_paddle
from diptych.convert.recognize import choose_head, dropped, recognize
from diptych.convert.report import Inspection, certificate
from diptych.convert.resnet import load_resnet
from diptych.convert.rules import kept, load_into, restore
from diptych.convert.share import pull_bundle, push_bundle
from diptych.convert.transfer import HeadWeights, start_task
from diptych.convert.vlbert import load_mmbert

__all__ = [
    "FAMILIES",
    "Family",
    "Head",
    "HeadWeights",
    "Inspection",
    "RecognizedCheckpoint",
    "Source",
    "certificate",
    "checkpoints",
    "choose_head",
    "convert_checkpoint",
    "download",
    "dropped",
    "fetch_listed",
    "fetchable",
    "fill_detector",
    "fill_model",
    "find",
    "inspect_checkpoint",
    "kept",
    "load_into",
    "load_mmbert",
    "load_mobilenet",
    "load_model",
    "load_parts",
    "load_region_encoder",
    "load_resnet",
    "load_text_encoder",
    "load_towers",
    "pair_encoders",
    "pull_bundle",
    "push_bundle",
    "read_paddle",
    "read_source",
    "read_weights",
    "recognize",
    "restore",
    "restore_checkpoint",
    "start_task",
    "transfer_answers",
]
