"""Vectors of pictures and texts by models of the library transformers, for stores of embeddings."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from diptych.data import SquareTransform
from diptych.data.inputs import digest, file_checksum
from diptych.detect.grid import load_foreign
from diptych.documents import read_json
from diptych.errors import ConfigError
from diptych.images import open_image

LONGEST = 512  # tokens of a text, for models that state no limit
Found = dict[str, Float[ndarray, "N _"]]


def foreign_vectors(
    folder: Path,
    items: Sequence[tuple[str, Path | None]],
    *,
    texts: bool,
    device: torch.device,
    batch_size: int = 32,
) -> tuple[str, str, Found]:
    """Embed items with a model of `transformers` or `sentence-transformers`.

    A dual encoder gives `joint_image` and `joint_text`. Another model that reads words gives `pooled`: the
    mean over the tokens of a text, or the first token's state where `1_Pooling/config.json` says so. One of
    pictures gives its pooled output.

    Args:
        folder: only its settings, tokenizer and safetensors are read; no code of it is run.
        items: text and picture of each item.
        texts: whether the items have texts.

    Returns:
        The name of the model, a checksum of its weights, and the vectors by part.

    Raises:
        ConfigError: transformers is not installed, cannot load the model, or it reads nothing of the items.
        FormatError: the folder needs code of its own, or has no safetensors.
    """
    network = load_foreign(str(folder)).to(device).eval()
    pictures = all(picture is not None for _, picture in items)
    dual, reads_words = hasattr(network, "get_image_features"), _reads_words(network)
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(items), batch_size):
        some = items[start : start + batch_size]
        for part, vectors in _parts(folder, network, some, pictures=pictures, texts=texts, dual=dual):
            if not (dual or reads_words is part.endswith("text")):
                continue
            found.setdefault(part if dual else "pooled", []).append(vectors.float().cpu())
    if not found:
        raise ConfigError(f"{folder} reads nothing of the items; give it pictures, or texts by --text.")
    checksum = digest([file_checksum(file) for file in sorted(folder.glob("*.safetensors"))])
    whole = {name: torch.cat(some).numpy() for name, some in found.items()}
    return folder.resolve().name, checksum, whole


def _reads_words(network: Any) -> bool:
    try:
        return isinstance(network.get_input_embeddings(), nn.Embedding)
    except (AttributeError, NotImplementedError):  # models of pictures have none, or a convolution
        return False


def _parts(
    folder: Path,
    network: Any,
    items: Sequence[tuple[str, Path | None]],
    *,
    pictures: bool,
    texts: bool,
    dual: bool,
) -> Iterator[tuple[str, Tensor]]:
    device = next(network.parameters()).device
    with torch.inference_mode():
        if pictures and (dual or not _reads_words(network)):
            transform = _transform(folder)
            opened = [transform(open_image(picture)) for _, picture in items if picture is not None]
            pixels = torch.stack(opened).to(device)
            made = network.get_image_features(pixels) if dual else network(pixel_values=pixels)
            yield "joint_image", _pooled(made)
        if texts and (dual or _reads_words(network)):
            tokens = _tokenizer(folder)([text for text, _ in items], **_limits(network)).to(device)
            if dual:
                yield "joint_text", _pooled(network.get_text_features(**tokens))
            else:
                yield (
                    "joint_text",
                    _mean(folder, network(**tokens).last_hidden_state, tokens["attention_mask"]),
                )


def _pooled(made: Any) -> Tensor:
    """The vectors of an output, whose form depends on the version of transformers."""
    pooled: Tensor | None = made if isinstance(made, Tensor) else getattr(made, "pooler_output", None)
    return (made.last_hidden_state[:, 0] if pooled is None else pooled).flatten(1)


def _mean(folder: Path, states: Float[Tensor, "B T D"], mask: Tensor) -> Float[Tensor, "B D"]:
    settings = folder / "1_Pooling" / "config.json"  # as sentence-transformers writes it
    if settings.is_file() and read_json(settings, dict[str, Any]).get("pooling_mode_cls_token"):
        return states[:, 0]
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def _tokenizer(folder: Path) -> Any:
    library = import_module("transformers")
    try:
        return library.AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # of many classes, for folders without a tokenizer
        raise ConfigError(f"{folder} has no tokenizer that transformers can load: {error}") from error


def _limits(network: Any) -> dict[str, Any]:
    settings = getattr(network.config, "text_config", network.config)
    longest = int(getattr(settings, "max_position_embeddings", LONGEST))
    return {"padding": True, "truncation": True, "max_length": longest, "return_tensors": "pt"}


def _transform(folder: Path) -> SquareTransform:
    """Squash as for memes (see `SquareTransform`), with the size and colors of the folder's settings."""
    path = folder / "preprocessor_config.json"
    settings = read_json(path, dict[str, Any]) if path.is_file() else {}
    size = settings.get("crop_size", settings.get("size", 224))
    side = size if isinstance(size, int) else size.get("height", size.get("shortest_edge", 224))
    colors: dict[str, Any] = {
        name: tuple(map(float, settings[key]))
        for name, key in (("mean", "image_mean"), ("std", "image_std"))
        if key in settings
    }
    return SquareTransform(size=int(side), **colors)
