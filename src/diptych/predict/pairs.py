"""The two sides of a split, such as its images and its texts, and scores of all their combinations.

A split of N images and M texts has N x M pairs. They are never listed as examples: a scorer takes some items
of each side and returns the block of their scores. Texts are tokenized once, regions are read once per block
of images, and layers that see only one side run once per item of a block if the model can share them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from diptych.data import Row, Sources, pad
from diptych.data.sampler import longest_first
from diptych.data.stream import stream
from diptych.errors import ConfigError
from diptych.predict.predictor import Predictor
from diptych.tasks import Match
from diptych.types import Batch, Dataset, Example, Inputs, Pair, VisionLanguageModel


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Two lists of items, every combination of which is scored.

    Args:
        names: what the items are: `image` and `text`, or `source` and `target` for pairs of sentences.
        ids: of the items of each side.
        left: the pair of each left item: an image without text, or a source sentence, with its image if it
            has one.
        right: text of each right item.
        owners: number of the left item to which each right item belongs.
    """

    names: tuple[str, str]
    ids: tuple[tuple[str, ...], tuple[str, ...]]
    left: tuple[Pair, ...]
    right: tuple[str, ...]
    owners: Int[ndarray, " M"]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.left), len(self.right)

    @property
    def directions(self) -> tuple[str, str]:
        """Names of the two searches: by left items among right ones, and the other way round."""
        left, right = self.names
        return f"{left}_to_{right}", f"{right}_to_{left}"

    def pair(self, row: int, column: int) -> Pair:
        """One combination."""
        left, right = self.left[row], self.right[column]
        return replace(left, text=right) if self.names[0] == "image" else replace(left, text_b=right)


def sides_of(dataset: Dataset) -> Sides:
    """Collect the sides of a split of true pairs.

    Examples with a second text are pairs of sentences: each sentence is an item. Otherwise every different
    image is an item, and every text is one.

    Raises:
        ConfigError: an example has several pairs or images, or no image and no second text, or is no true
            pair; or there are no examples.
    """
    left: dict[str, Pair] = {}
    ids, right, owners = list[str](), list[str](), list[int]()
    places: dict[str, int] = {}
    sentences: bool | None = None
    for example in stream(dataset):
        pair = example.pairs[0]
        second = pair.text_b is not None
        sentences = second if sentences is None else sentences
        if len(example.pairs) != 1 or isinstance(pair.image, tuple) or second != sentences:
            raise ConfigError(
                f"example {example.id} has {len(example.pairs)} pair(s) with the images {pair.image!r}; "
                "retrieval takes one image and one text, or two sentences, in all examples alike."
            )
        if pair.image is None and not second:
            raise ConfigError(
                f"example {example.id} has neither an image nor a second text; retrieval needs two sides."
            )
        if example.target not in (None, 1):
            raise ConfigError(
                f"example {example.id} has the target {example.target!r:.40}; expected true "
                "pairs, with the target 1. All other pairs are scored, too."
            )
        # Captions of images a a b have the owners 0 0 1. A sentence is always an item of its own: equal ones
        # may have different translations.
        key = example.id if second else str(pair.image)
        # The text of an image is left away here: it comes from the right side.
        left.setdefault(key, replace(pair, text_b=None) if second else replace(pair, text=""))
        owners.append(places.setdefault(key, len(places)))
        ids.append(example.id)
        right.append(pair.text_b or "" if second else pair.text)
    if not left:
        raise ConfigError("there is nothing to retrieve: the split has no examples.")
    return Sides(
        names=("source", "target") if sentences else ("image", "text"),
        ids=(tuple(left), tuple(ids)),
        left=tuple(left.values()),
        right=tuple(right),
        owners=np.array(owners),
    )


class Scorer(ABC):
    """Scores blocks of combinations.

    Args:
        sources: of regions and pictures, for the images of the left side.
    """

    def __init__(self, predictor: Predictor, sides: Sides, sources: Sources) -> None:
        self.predictor, self.sides, self.sources = predictor, sides, sources
        self.processor, self.device = predictor.processor, predictor.device
        self.model = cast(VisionLanguageModel, predictor.model)

    @abstractmethod
    def block(self, rows: Sequence[int], columns: Sequence[int]) -> Float[ndarray, "n m"]:
        """Scores of some left items with some right items; larger is better."""

    @cached_property
    def lengths(self) -> tuple[Int[ndarray, " N"], Int[ndarray, " M"]]:
        """Tokens and regions of each item of both sides; items of one block should have similar numbers."""
        return self._lengths(self.sides.left), self._lengths(self._texts)

    @property
    def _texts(self) -> list[Pair]:
        return [Pair(image=None, text=text) for text in self.sides.right]

    def _lengths(self, pairs: Sequence[Pair]) -> Int[ndarray, " L"]:
        examples = (Example(id="", pairs=(pair,)) for pair in pairs)
        lengths = (self.processor.length(example, self.sources.regions) for example in examples)
        return np.fromiter(lengths, np.int64, len(pairs))

    def _padded(self, rows: Sequence[Row], images: Sequence[int] | None = None) -> Inputs:
        pad_id = self.processor.text.pad_id if self.processor.text else 0
        return pad(rows, pad_id=pad_id, labels=self.processor.labels, images=images).to(self.device)

    @torch.inference_mode()
    def _run(self, inputs: Inputs, call: Callable[[Inputs], Tensor], what: str) -> Tensor:
        """Call a model in the precision of the predictor.

        Raises:
            ConfigError: a result is not a finite number.
        """
        bf16 = self.predictor.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            result = call(inputs).float().cpu()
        if not result.isfinite().all():
            raise ConfigError(
                f"scores near {what!r} are not finite numbers. Check that the weights and the features of "
                "these images are finite."
            )
        return result


class PairScorer(Scorer):
    """The logit of a task that scores pairs: every combination passes the model.

    Scores are logits and not probabilities, because those of good pairs all round to 1.

    Raises:
        ConfigError: the task does not score pairs.
    """

    def __init__(self, predictor: Predictor, sides: Sides, sources: Sources) -> None:
        super().__init__(predictor, sides, sources)
        if not isinstance(predictor.task, Match):
            raise ConfigError(
                f"{type(predictor.task).__name__} does not score pairs; train with task=match, or compare "
                "encodings with --by cosine."
            )
        # A readout of states would look for the mask of every row in the inputs.
        pooled = predictor.task.reads <= {"pooled"}
        self.shares_text, self.shares_regions = (
            pooled and getattr(self.model, name, False) for name in ("shares_text", "shares_regions")
        )
        # The tokens of a pair follow from its right item alone, unless the other side has words, too.
        self.independent = sides.names[0] == "image" and not self.processor.tags
        self._left: tuple[tuple[int, ...], list[Row], Inputs] = ((), [], Inputs())
        self._right: dict[int, Inputs] = {}

    def block(self, rows: Sequence[int], columns: Sequence[int]) -> Float[ndarray, "n m"]:
        inputs = self._combined(rows, columns) if self.independent else self._written(rows, columns)
        count = len(rows) * len(columns)
        # A task scores without ids; only predictions need them.
        batch = Batch(ids=("",) * count, inputs=inputs)
        task = cast(Match, self.predictor.task)  # checked when this was made

        def score(inputs: Inputs) -> Tensor:
            return task.score(self.model(self._spread(inputs), reads=task.reads), batch)

        logits = self._run(inputs, score, self.sides.ids[0][rows[0]])
        # Images are the outer loop of both ways to combine them.
        return logits.reshape(len(rows), len(columns)).numpy()

    def _combined(self, rows: Sequence[int], columns: Sequence[int]) -> Inputs:
        """Every image with every text; both are padded once."""
        images, texts = self._images(rows)[1], self._padded_texts(columns)
        # Of two images and three texts: left 0 0 0 1 1 1, right 0 1 2 0 1 2, as the rows of the table.
        left = torch.arange(len(rows), device=self.device).repeat_interleave(len(columns))
        right = torch.arange(len(columns), device=self.device).repeat(len(rows))
        return Inputs(
            text=None if texts.text is None else replace(texts.text, shared=right),
            regions=None if images.regions is None else replace(images.regions, shared=left),
            pixels=None if images.pixels is None else images.pixels[left],
            vectors=None if texts.vectors is None else texts.vectors[right],
        )

    def _written(self, rows: Sequence[int], columns: Sequence[int]) -> Inputs:
        """As `_combined`, where the tokens of a pair depend on both items."""
        whole = [
            self.processor.with_text(image, self.sides.pair(row, column), self.sources.regions)
            for row, image in zip(rows, self._images(rows)[0], strict=True)
            for column in columns
        ]
        return self._padded(whole, [row for row in rows for _ in columns])

    def _spread(self, inputs: Inputs) -> Inputs:
        """Copy what the model cannot share."""
        text, regions = inputs.text, inputs.regions
        if text is not None and not self.shares_text:
            text = text.unshared()
        if regions is not None and not self.shares_regions:
            regions = regions.unshared()
        return replace(inputs, text=text, regions=regions)

    def _images(self, rows: Sequence[int]) -> tuple[list[Row], Inputs]:
        """The rows of left items, which are read once for all blocks that have them."""
        if self._left[0] != tuple(rows):
            found = [self.processor(self.sides.left[row], self.sources) for row in rows]
            # Only one block is kept: features of all images would fill the memory.
            self._left = tuple(rows), found, self._padded(found) if self.independent else Inputs()
        return self._left[1:]

    def _padded_texts(self, columns: Sequence[int]) -> Inputs:
        """The tokens of right items. All are kept: a text takes some hundred bytes."""
        # Columns are cut alike for every band of rows, so the first one tells the block.
        if columns[0] not in self._right:
            texts = [Pair(image=None, text=self.sides.right[column]) for column in columns]
            rows = [self.processor.with_text(Row(), text) for text in texts]
            self._right[columns[0]] = self._padded(rows)
        return self._right[columns[0]]


class CosineScorer(Scorer):
    """The cosine of the first states of both items, each encoded alone.

    An image has an empty text, and a text has no image. A source sentence keeps its image if it has one.

    Args:
        batch_size: items that are encoded together.

    Raises:
        ConfigError: the model reads pixels, so it cannot encode a text alone, or gives no states of tokens.
    """

    def __init__(self, predictor: Predictor, sides: Sides, sources: Sources, *, batch_size: int = 32) -> None:
        super().__init__(predictor, sides, sources)
        # Such a model would have to make up a picture for a text.
        if "pixels" in self.model.needs or not self.model.text_dim:
            raise ConfigError(
                f"{type(self.model).__name__} encodes no text without a picture; --by cosine takes a model "
                "of text and regions, or of two towers such as CLIP. For other towers, embed the split with "
                "them, and train model=joint_embeddings."
            )
        self.batch_size = batch_size

    def block(self, rows: Sequence[int], columns: Sequence[int]) -> Float[ndarray, "n m"]:
        left, right = self.vectors
        return (left[[*rows]] @ right[[*columns]].T).numpy()

    @cached_property
    def vectors(self) -> tuple[Float[Tensor, "N D"], Float[Tensor, "M D"]]:
        """First states of all items of both sides, of length 1."""
        return self._encoded(self.sides.left, self.lengths[0]), self._encoded(self._texts, self.lengths[1])

    def _encoded(self, pairs: Sequence[Pair], lengths: Int[ndarray, " L"]) -> Float[Tensor, "L D"]:
        vectors = torch.zeros(len(pairs), self.model.text_dim)
        # Similar lengths save padding; each vector goes to the place of its item.
        for batch in longest_first(lengths, batch_size=self.batch_size):
            # Read batch by batch: features of all images would fill the memory.
            rows = [self.processor(pairs[number], self.sources) for number in batch]
            what = pairs[batch[0]].image or pairs[batch[0]].text
            vectors[batch] = self._run(self._padded(rows), self._first_states, str(what))
        # Once here, so that a product of two vectors is their cosine.
        return functional.normalize(vectors, dim=-1)

    def _first_states(self, inputs: Inputs) -> Float[Tensor, "B D"]:
        states = self.model(inputs, reads=frozenset({"text"})).text
        assert states is not None
        return states[:, 0]


class JointScorer(CosineScorer):
    """The cosine of the joint vectors of a dual encoder: CLIP, SigLIP, or stored vectors of two towers."""

    def __init__(self, predictor: Predictor, sides: Sides, sources: Sources, *, batch_size: int = 32) -> None:
        Scorer.__init__(self, predictor, sides, sources)
        if sides.names[0] != "image":
            raise ConfigError("a dual encoder compares pictures and texts; the split has pairs of sentences.")
        self.batch_size = batch_size

    @cached_property
    def lengths(self) -> tuple[Int[ndarray, " N"], Int[ndarray, " M"]]:
        # Vectors are all that a block needs, so items of any length fit together.
        return np.ones(self.sides.shape[0], np.int64), np.ones(self.sides.shape[1], np.int64)

    @cached_property
    def vectors(self) -> tuple[Float[Tensor, "N D"], Float[Tensor, "M D"]]:
        pictures = self._joint(self.sides.left, self._row, "joint_image")
        owners = self.sides.owners.tolist()
        both = zip(owners, self.sides.right, strict=True)
        pairs = [replace(self.sides.left[owner], text=text) for owner, text in both]
        # The stored vector of a text lies beside that of its picture; a tower needs the words alone.
        stored = "regions" in self.model.needs
        return pictures, self._joint(pairs, self._row if stored else self._words, "joint_text")

    def _row(self, pair: Pair) -> Row:
        return self.processor(pair, self.sources)

    def _words(self, pair: Pair) -> Row:
        return self.processor.with_text(Row(), pair)

    def _joint(self, pairs: Sequence[Pair], read: Callable[[Pair], Row], part: str) -> Float[Tensor, "L D"]:
        def encode(inputs: Inputs) -> Tensor:
            return cast(Tensor, getattr(self.model(inputs, reads=frozenset({part})), part))

        found = []
        for start in range(0, len(pairs), self.batch_size):
            some = pairs[start : start + self.batch_size]
            what = some[0].image or some[0].text
            found.append(self._run(self._padded([read(pair) for pair in some]), encode, str(what)))
        return torch.cat(found)
