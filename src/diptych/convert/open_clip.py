"""Folders of open_clip: what `open_clip_config.json` says of the weights, and the names of CustomTextCLIP."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import TypedDict

from diptych.documents import read_json
from diptych.errors import ConfigError

FILE = "open_clip_config.json"
TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")


class VisionPart(TypedDict, total=False):
    """Of the image tower; other fields are dropped."""

    width: int
    head_width: int
    layers: int | list[int]
    timm_model_name: str


class TextPart(TypedDict, total=False):
    """Of the text tower."""

    heads: int
    hf_model_name: str


# As calls, because the keys are open_clip's own abbreviations.
ModelPart = TypedDict(  # noqa: UP013
    "ModelPart", {"vision_cfg": VisionPart, "text_cfg": TextPart, "quick_gelu": bool}, total=False
)
OpenClip = TypedDict("OpenClip", {"model_cfg": ModelPart})  # noqa: UP013


def read_open_clip(path: Path, *, advice: str) -> dict[str, Any]:
    """Read an `open_clip_config.json` as a `config.json` of Hugging Face says the same.

    Raises:
        ConfigError: a tower is of a kind that diptych does not have.
        FormatError: the file is damaged; names the key.
    """
    model = read_json(path, OpenClip, advice=advice)["model_cfg"]
    vision, text = model.get("vision_cfg", {}), model.get("text_cfg", {})
    if hub := text.get("hf_model_name"):
        raise ConfigError(
            f"{path}: the text tower is {hub!r} of Hugging Face; expected CLIP's own. Embed with "
            "`diptych embed --model transformers:FOLDER`, if there is a folder of transformers."
        )
    # SigLIP's image tower is timm's; which one it is, its weights show.
    if vision.get("timm_model_name"):
        return {}
    if isinstance(vision.get("layers"), list):
        raise ConfigError(f"{path}: the image tower is a ResNet; expected a vision transformer.")
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    towers: dict[str, dict[str, Any]] = {name: {"hidden_act": activation} for name in ("text", "vision")}
    if "heads" in text:
        towers["text"]["num_attention_heads"] = text["heads"]
    if "width" in vision:
        towers["vision"]["num_attention_heads"] = vision["width"] // vision.get("head_width", 64)
    return {f"{name}_config": values for name, values in towers.items()}


def plain_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a CustomTextCLIP under the names of CLIP, which has its text tower beside the image's.

    Files of other models are returned as they are; SigLIP's have no class vector of the image.
    """
    custom = {"visual.class_embedding", "text.token_embedding.weight"} <= weights.keys()
    return {
        name.removeprefix("text.") if custom and name.removeprefix("text.").startswith(TEXT) else name: one
        for name, one in weights.items()
    }
