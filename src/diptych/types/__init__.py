"""Types shared by all subpackages: one type per step of the data from files on disk to predictions.

Letters used in all shapes: N examples, P pairs per example, B = N * P rows, T text tokens, R regions,
F region-feature width, D model width (Dt text, Dv region), J width of joint vectors, C classes, K detector
classes, E sentence-vector width. Masks are bool; True marks real positions. Boxes are x1 y1 x2 y2. Sizes are
(width, height).
"""

from diptych.types.batches import (
    EVERYTHING,
    Batch,
    Encoding,
    Inputs,
    Outcome,
    PaddedRegions,
    PaddedText,
    Targets,
)
from diptych.types.examples import Example, Mention, Pair, Tokens
from diptych.types.protocols import (
    Dataset,
    Progress,
    RegionSource,
    TargetEncoder,
    Tokenizer,
    VisionLanguageModel,
)
from diptych.types.regions import OPTIONAL_REGION_FIELDS, FeatureMeta, Regions

__all__ = [
    "EVERYTHING",
    "OPTIONAL_REGION_FIELDS",
    "Batch",
    "Dataset",
    "Encoding",
    "Example",
    "FeatureMeta",
    "Inputs",
    "Mention",
    "Outcome",
    "PaddedRegions",
    "PaddedText",
    "Pair",
    "Progress",
    "RegionSource",
    "Regions",
    "TargetEncoder",
    "Targets",
    "Tokenizer",
    "Tokens",
    "VisionLanguageModel",
]
