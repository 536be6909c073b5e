"""The attention maps of one example: every layer and head, with the name of every position."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from diptych.data import Row, Sources, image_keys, pad
from diptych.errors import ConfigError
from diptych.explain.places import Place, region_places, text_places
from diptych.explain.relevance import real_places
from diptych.nn import Side, attention_places, capture_attention
from diptych.predict import Listed, Predictor
from diptych.predictions import Predictions
from diptych.tasks import Task
from diptych.types import EVERYTHING, Example, Inputs, Pair, VisionLanguageModel

TITLES = {  # by the sides of queries and keys
    ("both", "both"): "layer",
    ("text", "text"): "text",
    ("regions", "regions"): "picture",
    ("text", "regions"): "text \N{RIGHTWARDS ARROW} picture",
    ("regions", "text"): "picture \N{RIGHTWARDS ARROW} text",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MapLayer:
    """The maps of all heads of one attention layer.

    Args:
        name: as in `capture_attention`.
        title: for people: kind and number, such as `layer 3` or `text → picture 1`.
        sides: of queries and keys; `both` is the text followed by the regions.
        queries: number of the place of each row: who looks.
        keys: number of the place of each column: what is looked at.
        weights: each row sums to 1, or to 0 if there is no key.
    """

    name: str
    title: str
    sides: tuple[Side, Side]
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    weights: Float[ndarray, "H Q K"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairMaps:
    """The maps of one row: a text and its picture, or its pictures.

    Args:
        images: file of each picture; None if it is not known.
        layers: in order of computation.
    """

    text: str
    images: tuple[Path | None, ...]
    places: tuple[Place, ...]
    layers: tuple[MapLayer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleMaps:
    """The maps of all pairs of an example.

    Args:
        answer: what the model answers, with its probability if there is one; empty for a model without task.
    """

    id: str
    pairs: tuple[PairMaps, ...]
    answer: str = ""


def explain_attention(predictor: Predictor, example: Example, sources: Sources) -> ExampleMaps:
    """Run the model once per pair and collect the attention maps of all layers and heads.

    Attention says where a model looked, not why it decided as it did.

    Args:
        sources: where the regions and pictures are, as `predictor.sources` returns them.

    Raises:
        ConfigError: the model has no attention, an input is missing, or a map is not finite.
        MissingFeatures: a picture has no regions.
    """
    dataset = Listed([example])
    predictor.batches(dataset, sources, 1)  # checks that the sources have what the model reads
    rows = predictor.processor.rows(example, sources)
    # Row by row, because padding would have to be cut out again.
    pairs = [_pair(predictor, pair, row, sources) for pair, row in zip(example.pairs, rows, strict=True)]
    # After the maps, without recording: then the fused kernels run.
    answer = ""
    if isinstance(predictor.task, Task):
        answer = _answer(next(predictor.predict_batches(dataset, sources, [[0]])))
    return ExampleMaps(id=example.id, pairs=tuple(pairs), answer=answer)


def _pair(predictor: Predictor, pair: Pair, row: Row, sources: Sources) -> PairMaps:
    processor, plan = predictor.processor, attention_places(predictor.model)
    images = processor.regions_of(pair, sources.regions)
    texts = processor.texts(pair, images, sources.regions)
    places = [] if row.tokens is None else text_places(processor, row.tokens, texts, plan)
    if processor.regions:
        places += region_places(processor, pair, images, sources.regions, plan)
    # A batch of one row has no padding, so any number would do.
    pad_id = 0 if processor.text is None else processor.text.pad_id
    inputs = pad([row], pad_id=pad_id, labels=processor.labels).to(predictor.device)
    files = {} if sources.images is None else sources.images
    return PairMaps(
        text=" / ".join(filter(None, texts)),
        images=tuple(Path(files[key]) if key in files else None for key in image_keys(pair)),
        places=tuple(places),
        layers=pair_maps(predictor.model, inputs, places),
    )


def pair_maps(model: nn.Module, inputs: Inputs, places: Sequence[Place]) -> tuple[MapLayer, ...]:
    """Return the maps of a batch of one row.

    Args:
        places: of the row: the text's first, then the regions'.

    Raises:
        ConfigError: the model has no attention, its maps are not over `places`, or they are not finite.
    """
    name = type(model).__name__
    with torch.inference_mode(), capture_attention(model) as maps:
        # Everything, or the last layer would compute the queries of the pooled position only.
        cast(VisionLanguageModel, model)(inputs, reads=EVERYTHING)
    if not maps:
        raise ConfigError(
            f"{name} records no attention maps; expected a model with attention over text or regions."
        )
    sides = {
        "text": tuple(n for n, place in enumerate(places) if place.side == "text"),
        "regions": tuple(n for n, place in enumerate(places) if place.side == "regions"),
        "both": tuple(range(len(places))),
    }
    plan, layers, seen = attention_places(model), [], Counter[tuple[str, str]]()
    real = {side: mask[0].cpu() for side, mask in real_places(inputs, plan).items()}
    for key, found in maps.items():
        # Such as maps over the patches of a picture, which are no places of a row.
        if not plan.describes(key):
            continue
        side = plan.sides_of(key)
        rows, columns = (real[one] for one in side)
        # Names that are shifted by one position would be believed.
        if found.shape[2:] != (len(rows), len(columns)):
            raise ConfigError(
                f"the map {key} of {name} has {found.shape[2]} x {found.shape[3]} positions; expected "
                f"{len(rows)} x {len(columns)}. Describe the maps in {name}.attention_places()."
            )
        # The 0 is taken away first, and the axes stay H Q K; NumPy would put the rows in front. Two steps,
        # because two masks at once would be paired element by element.
        weights = found[0, :, rows][:, :, columns].float().cpu().numpy()
        queries, keys = sides[side[0]], sides[side[1]]
        if not found.isfinite().all():
            raise ConfigError(
                f"the map {key} of {name} is not finite. Check that the weights and the features are finite."
            )
        seen[side] += 1
        title = f"{TITLES[side]} {seen[side]}"
        layers.append(
            MapLayer(name=key, title=title, sides=side, queries=queries, keys=keys, weights=weights)
        )
    if not layers:
        raise ConfigError(f"no attention map of {name} is over its text or regions.")
    return tuple(layers)


def _answer(predictions: Predictions) -> str:
    if predictions.answers is None:
        return ""
    answer, classes = predictions.answers[0], predictions.classes or ()
    # One class is a yes or no, such as `matches`: the answer 1 or 0 would not tell of what.
    name = classes[0] if len(classes) == 1 else answer
    if predictions.scores is None or name not in classes:
        return answer
    return f"{name} ({float(predictions.column(name)[0]):.2f})"
