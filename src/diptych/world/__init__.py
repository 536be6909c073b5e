"""The miniature world: scenes with known truth, their pictures, their regions and their language."""

from diptych.world.language import Remark, captions, grumble
from diptych.world.render import detect, draw_meme, draw_scene
from diptych.world.scene import Relation, Scene, Thing, new_scene

__all__ = [
    "Relation",
    "Remark",
    "Scene",
    "Thing",
    "captions",
    "detect",
    "draw_meme",
    "draw_scene",
    "grumble",
    "new_scene",
]
