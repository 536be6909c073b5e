"""From one pair to the numbers of one row: tokenize, look up regions, open the picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from diptych.data.transform import MOST, DetectorTransform
from diptych.errors import ConfigError, FormatError
from diptych.images import open_image, to_pixels
from diptych.text import FastText
from diptych.types import (
    OPTIONAL_REGION_FIELDS,
    Example,
    Pair,
    Regions,
    RegionSource,
    Tokenizer,
    Tokens,
)

MISSING = ("error", "none", "skip")


class Sources(NamedTuple):
    """Where the processor looks up what a pair names: regions and picture files by image key."""

    regions: RegionSource | None = None
    images: Mapping[str, Path] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image-text pair before padding; what the model does not need is None.

    Args:
        mentions: number of the region that each token names, or -1; None where the pair mentions nothing.
        boxes: normalized to [0, 1].
        image_index: which image of the pair each region belongs to.
        regions: of end-to-end models, boxes alone.
        resized: width and height of the picture in which boxes were clipped.
        beyond: sum of the features that `max_regions` cut off, and how many these were.
    """

    tokens: Tokens | None = None
    more_tokens: tuple[Tokens, ...] = ()
    mentions: Int[ndarray, " T"] | None = None
    regions: Regions | None = None
    boxes: Float[ndarray, "R 4"] | None = None
    image_index: Int[ndarray, " R"] | None = None
    beyond: tuple[Float[Tensor, " F"], int] | None = None
    pixels: Float[Tensor, "3 h w"] | None = None
    resized: tuple[int, int] | None = None
    vector: Float[ndarray, " E"] | None = None


class Processor:
    """Turns pairs into rows; belongs to a model as its vocabulary does, and is saved with it.

    Args:
        text: tokenizer, for models that read tokens.
        vectors: sentence vectors, for models that read those.
        image_size: pictures are resized to this many pixels squared, for models that read pixels.
        prepare: resizes pictures and keeps their shape, for end-to-end models; of regions, their boxes count.
        grid: rows and columns of boxes where none are given, for end-to-end models.
        whole_image: a box around the picture comes before the others, for end-to-end models.
        regions: whether the model reads regions.
        max_tokens: longer texts are cut, special tokens included.
        max_regions: further regions of an image are dropped; a store holds the best ones first. They still
            count in the mean that models take for the whole image.
        labels: hand on what the detector said of each region, which some objectives of pre-training ask for.
        tags: append the detected object names to the text as its second segment.
        text_b: second segment of pairs that have none: `[MASK]` is where VL-BERT answers questions, with
            `model.readout=before_end`.
        text_end: ends every text, in place of its own question marks: `? [MASK]` is where uclanlp's
            VisualBERT answers questions.
        missing: what an image without regions is: an `error`, an image with `none`, or one to `skip` in
            training and validation; predictions are complete, so there it has none.
        box_scale: `size` divides x by the width and y by the height. `swapped` reproduces nav13n's UNITER,
            which divides x by the height and y by the width.
        clip_boxes: pixels of the shorter side and, at most, of the longer one; boxes end at the last pixel of
            the picture resized so, as in VL-BERT also with features that were made before.
    """

    def __init__(
        self,
        *,
        text: Tokenizer | None = None,
        vectors: FastText | None = None,
        image_size: int | None = None,
        prepare: DetectorTransform | None = None,
        grid: Sequence[int] | None = None,
        whole_image: bool = False,
        regions: bool = False,
        max_tokens: int = 128,
        max_regions: int = 100,
        labels: bool = False,
        tags: bool = False,
        text_b: str | None = None,
        text_end: str | None = None,
        missing: str = "error",
        box_scale: str = "size",
        clip_boxes: Sequence[int] | None = None,
    ) -> None:
        if missing not in MISSING or box_scale not in ("size", "swapped"):
            raise ConfigError(
                f"processor.missing is {missing!r} (expected one of {MISSING}), "
                f"processor.box_scale is {box_scale!r} (expected 'size' or 'swapped')."
            )
        _require_sizes(image_size=image_size, max_tokens=max_tokens, max_regions=max_regions)
        alone = regions and image_size is None and box_scale == "size"
        _require_end_to_end(prepare, grid, whole_image=whole_image, alone=alone and clip_boxes is None)
        if clip_boxes is not None and (len(clip_boxes) != 2 or min(clip_boxes) < 1 or box_scale != "size"):
            raise ConfigError(
                f"processor.clip_boxes is {list(clip_boxes)} and processor.box_scale {box_scale!r}; expected "
                "pixels of the shorter and the longer side, as [600, 1000], and 'size'."
            )
        self.text, self.vectors, self.image_size, self.regions = text, vectors, image_size, regions
        self.prepare, self.grid, self.whole_image = prepare, grid, whole_image
        self.max_tokens, self.max_regions, self.labels = max_tokens, max_regions, labels
        self.tags, self.text_b, self.text_end = tags, text_b, text_end
        self.frame = None
        if clip_boxes is not None:
            self.frame = DetectorTransform(least=clip_boxes[0], most=clip_boxes[1], truncate=True)
        self.missing, self.box_scale = missing, box_scale

    @property
    def provides(self) -> frozenset[str]:
        """Modalities in the words of a model's `needs`."""
        present = {
            "text": self.text is not None,
            "vectors": self.vectors is not None,
            "pixels": self.image_size is not None or self.prepare is not None,
            "regions": self.regions,
        }
        return frozenset(name for name, given in present.items() if given)

    def __call__(self, pair: Pair, sources: Sources) -> Row:
        """All that the model needs of one pair.

        Raises:
            MissingFeatures: the store has no regions of the image.
            FormatError: the picture is missing or cannot be read.
        """
        keys = image_keys(pair)
        found = [self._regions(key, sources.regions) for key in keys or (None,)] if self.regions else []
        tokens = self._tokens(pair, found, sources.regions) if self.text is not None else None
        pixels = self._pixels(keys, sources.images) if "pixels" in self.provides else None
        if self.prepare is not None and pixels is not None:
            found = [self._boxes_alone(found[0], pixels)]
        return Row(
            tokens=tokens,
            more_tokens=self._more_tokens(pair),
            mentions=self._mentions(pair, tokens, sum(map(len, found))) if tokens and pair.mentions else None,
            regions=_join(found) if found else None,
            boxes=np.concatenate([self._normalize(regions) for regions in found]) if found else None,
            image_index=np.repeat(np.arange(len(found)), [len(regions) for regions in found])
            if found
            else None,
            beyond=self._beyond(keys, sources.regions),
            pixels=pixels,
            resized=self.frame.resized(*found[0].size) if self.frame and found else None,
            vector=self.vectors.vector(pair.text) if self.vectors is not None else None,
        )

    def length(self, example: Example, regions: RegionSource | None = None) -> int:
        """Tokens plus regions of the longest row: what a batch pays for. Pictures all cost the same."""
        return max(self._pair_length(pair, regions) for pair in example.pairs)

    def _pair_length(self, pair: Pair, regions: RegionSource | None) -> int:
        keys = [key for key in image_keys(pair) if regions is not None and key in regions]
        total = 0
        if self.text is not None:
            # labels lie apart from features, which are not touched
            found = [self._regions(key, regions) for key in keys] if self.regions and self.tags else []
            total += len(self._tokens(pair, found, regions))
        if self.regions and regions is not None:
            total += sum(min(regions.count(key), self.max_regions) for key in keys) + self.whole_image
        return total

    def _first(self, pair: Pair) -> str:
        return pair.text if self.text_end is None else f"{pair.text.rstrip('? ')} {self.text_end}"

    def _second(self, pair: Pair) -> str | None:
        return self.text_b if pair.text_b is None else pair.text_b

    def _tokens(self, pair: Pair, found: list[Regions], source: RegionSource | None) -> Tokens:
        assert self.text is not None, "whoever asks has looked"
        text_b = self._tags(found, source) if self.tags else self._second(pair)
        return self.text.encode(self._first(pair), text_b, max_tokens=self.max_tokens)

    def _more_tokens(self, pair: Pair) -> tuple[Tokens, ...]:
        if self.text is None:
            return ()
        return tuple(self.text.encode(text, max_tokens=self.max_tokens) for text in pair.more_texts)

    def _mentions(self, pair: Pair, tokens: Tokens, regions: int) -> Int[ndarray, " T"]:
        """The region that each token names, of those that are there; -1 where none."""
        named, first = np.full(len(tokens), -1), int(self.whole_image)
        for mention in pair.mentions:
            if not 0 <= mention.region < regions - first or (self.tags and mention.segment):
                continue
            for token, (start, stop) in enumerate(tokens.offsets):
                inside = start < mention.stop and stop > mention.start
                if inside and tokens.segments[token] == mention.segment:
                    named[token] = mention.region + first
        return named

    def _regions(self, key: str | None, source: RegionSource | None) -> Regions:
        """Those of an image; none of a pair without image."""
        assert source is not None, "require_sources has looked"
        if key is None or (key not in source and self.missing != "error"):
            meta = source.meta
            return Regions(
                features=np.zeros((0, meta.feature_dim), np.float32),
                boxes=np.zeros((0, 4), np.float32),
                size=(1, 1),
            )
        return source[key].first(self.max_regions)

    def _beyond(
        self, keys: tuple[str, ...], source: RegionSource | None
    ) -> tuple[Float[Tensor, " F"], int] | None:
        if source is None or not self.regions or self.prepare is not None:
            return None
        cut = [key for key in keys if key in source and source.count(key) > self.max_regions]
        if not cut:
            return None
        rest = np.concatenate([source[key].features[self.max_regions :] for key in cut])
        return torch.from_numpy(rest).float().sum(0), len(rest)  # ten times as fast as NumPy from float16

    def _normalize(self, regions: Regions) -> Float[ndarray, "R 4"]:
        width, height = regions.size
        scale = (width, height) if self.box_scale == "size" else (height, width)
        boxes = regions.boxes / np.array(scale * 2, np.float32)
        last = (
            1 if self.frame is None else 1 - 1 / np.array(self.frame.resized(*regions.size) * 2, np.float32)
        )
        return boxes.clip(0, last) if self.box_scale == "size" else boxes

    def _tags(self, found: list[Regions], source: RegionSource | None) -> str:
        names = source.meta.classes if source is not None else ()
        return " ".join(
            names[label] for regions in found if regions.labels is not None for label in regions.labels
        )

    def _pixels(self, keys: tuple[str, ...], images: Mapping[str, Path] | None) -> Float[Tensor, "3 h w"]:
        assert images is not None, "require_sources has looked"
        if len(keys) != 1:
            raise ConfigError(f"a pair names {len(keys)} images; models that read pixels take exactly one.")
        image = open_image(images[keys[0]])
        if self.prepare is None:
            assert self.image_size is not None, "whoever asks has looked"
            return to_pixels(image, self.image_size)
        try:
            return self.prepare(image).pixels
        except FormatError as error:
            raise FormatError(f"{images[keys[0]]}: {error}") from error

    def _boxes_alone(self, regions: Regions, pixels: Float[Tensor, "3 h w"]) -> Regions:
        """Without features; boxes end at the last pixel of the resized picture, as in VL-BERT."""
        size = np.array(regions.size * 2, np.float32)
        last = size * (1 - 1 / np.array(pixels.shape[:0:-1] * 2, np.float32))
        boxes = regions.boxes.clip(0, last)
        if self.whole_image:
            boxes = np.concatenate([np.concatenate([last[:2] * 0, last[2:]])[None], boxes])
            return Regions(features=np.zeros((len(boxes), 0), np.float32), boxes=boxes, size=regions.size)
        return replace(regions, features=np.zeros((len(boxes), 0), np.float32), boxes=boxes)


def _require_end_to_end(
    prepare: DetectorTransform | None, grid: Sequence[int] | None, *, whole_image: bool, alone: bool
) -> None:
    """`alone`: with regions, and without other settings of pixels and boxes."""
    if prepare is None and (grid is not None or whole_image):
        raise ConfigError("processor.grid and processor.whole_image belong to processor.prepare.")
    if prepare is not None and not alone:
        raise ConfigError(
            "processor.prepare is for models that see pixels and boxes; it asks for regions=true "
            "and goes with neither image_size nor box_scale nor clip_boxes."
        )
    if grid is not None and (len(grid) != 2 or min(grid) < 1 or max(grid) > 100):
        raise ConfigError(
            f"processor.grid is {list(grid)}; expected numbers of rows and columns up to 100, as [4, 4]."
        )


def _require_sizes(**sizes: int | None) -> None:
    """A picture beyond `MOST` pixels squared would fill the memory."""
    most = {"image_size": MOST}
    for name, size in sizes.items():
        if size is not None and not 1 <= size <= most.get(name, size):
            limit = f" to {most[name]}" if name in most else ""
            raise ConfigError(f"processor.{name} is {size}; expected a number from 1{limit}.")


def image_keys(pair: Pair) -> tuple[str, ...]:
    """The image keys of a pair, none to several."""
    if pair.image is None:
        return ()
    return (pair.image,) if isinstance(pair.image, str) else pair.image


def _join(found: list[Regions]) -> Regions:
    """Regions of several images in one row; the size is the first image's."""
    if len(found) == 1:
        return found[0]
    shared = [name for name in OPTIONAL_REGION_FIELDS if all(getattr(one, name) is not None for one in found)]
    return Regions(
        size=found[0].size,
        **{
            name: np.concatenate([getattr(one, name) for one in found])
            for name in ("features", "boxes", *shared)
        },
    )
