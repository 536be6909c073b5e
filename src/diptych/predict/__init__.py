"""Prediction with a bundle: single examples, many examples, whole splits, and retrieval over all pairs."""

from diptych.predict.compiled import compile_layers
from diptych.predict.embed import (
    JOINT,
    case_part,
    described,
    embed_batches,
    embed_dataset,
    embed_texts,
    own_parts,
    side_by_side,
)
from diptych.predict.given import GivenRegions, Listed
from diptych.predict.joined import JoinedFiles, join_splits, joined_data
from diptych.predict.pairs import CosineScorer, PairScorer, Sides, sides_of
from diptych.predict.predictor import Predictor, Verdict, find_device, load
from diptych.predict.retrieval import Measuring, Retrieval, retrieve
from diptych.predict.splits import (
    SplitFiles,
    bundle_checksum,
    predict_splits,
    regions_of_run,
    root_of_run,
)
from diptych.predict.towers import embedded, stored_vectors
from diptych.predict.translate import Translated, translate_split

__all__ = [
    "JOINT",
    "CosineScorer",
    "GivenRegions",
    "JoinedFiles",
    "Listed",
    "Measuring",
    "PairScorer",
    "Predictor",
    "Retrieval",
    "Sides",
    "SplitFiles",
    "Translated",
    "Verdict",
    "bundle_checksum",
    "case_part",
    "compile_layers",
    "described",
    "embed_batches",
    "embed_dataset",
    "embed_texts",
    "embedded",
    "find_device",
    "join_splits",
    "joined_data",
    "load",
    "own_parts",
    "predict_splits",
    "regions_of_run",
    "retrieve",
    "root_of_run",
    "side_by_side",
    "sides_of",
    "stored_vectors",
    "translate_split",
]
