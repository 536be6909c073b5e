"""Tasks: head, loss, decoding and metrics of a form of decision, for any model and any data set."""

from diptych.tasks.answer import Answer
from diptych.tasks.base import AnswerScores, Part, Predicting, RightPair, Task, Trainable
from diptych.tasks.choose import Choose
from diptych.tasks.classify import Classify, ClassIndex
from diptych.tasks.fix_match import FixMatch
from diptych.tasks.ground import GoldBox, Ground
from diptych.tasks.hate_clipper import HateClipper
from diptych.tasks.match import Match
from diptych.tasks.meme_clip import MemeClip
from diptych.tasks.multi_label import LabelScores, MultiLabel
from diptych.tasks.pretrain import Pretrain
from diptych.tasks.rgcl import Rgcl
from diptych.tasks.search import Search, beam_search
from diptych.tasks.translate import SentenceIds, Translate, TranslateMasked, Translation

__all__ = [
    "Answer",
    "AnswerScores",
    "Choose",
    "ClassIndex",
    "Classify",
    "FixMatch",
    "GoldBox",
    "Ground",
    "HateClipper",
    "LabelScores",
    "Match",
    "MemeClip",
    "MultiLabel",
    "Part",
    "Predicting",
    "Pretrain",
    "Rgcl",
    "RightPair",
    "Search",
    "SentenceIds",
    "Task",
    "Trainable",
    "Translate",
    "TranslateMasked",
    "Translation",
    "beam_search",
]
