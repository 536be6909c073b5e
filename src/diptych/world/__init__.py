"""The miniature world: scenes with known content, and the pictures, regions and texts made from them."""

from diptych.world.german import Bilingual, describe, tokenized
from diptych.world.language import Remark, captions, complain
from diptych.world.questions import Question, ask
from diptych.world.render import detect, draw_meme, draw_scene, observe
from diptych.world.scene import Relation, Scene, Thing, new_scene

__all__ = [
    "Bilingual",
    "Question",
    "Relation",
    "Remark",
    "Scene",
    "Thing",
    "ask",
    "captions",
    "complain",
    "describe",
    "detect",
    "draw_meme",
    "draw_scene",
    "new_scene",
    "observe",
    "tokenized",
]
