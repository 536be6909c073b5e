"""The processor: tokenizes the text of a pair, looks up its regions and opens its picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from diptych.data.bare import boxes_alone
from diptych.data.cutting import cut_row, in_one_segment, joined, lengths_of_rows, without_ends
from diptych.data.transform import MOST, DetectorTransform, SquareTransform
from diptych.errors import ConfigError, FormatError
from diptych.images import open_image, to_pixels
from diptych.text import FastText
from diptych.types import Example, Pair, Regions, RegionSource, Tokenizer, Tokens

MISSING = ("error", "none", "skip")


class Sources(NamedTuple):
    """Where the processor finds the regions and the picture of an image key."""

    regions: RegionSource | None = None
    images: Mapping[str, Any] | None = None  # files, or opened pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image-text pair before padding. Parts that the model does not read are None.

    Args:
        tokens: text, and second text if there is one.
        more_tokens: further texts, each tokenized alone.
        mentions: index of the region that each token names, or -1. None if the pair has no mentions.
        regions: features, boxes in pixels and labels; for end-to-end models without features.
        boxes: the boxes of `regions`, normalized to [0, 1].
        image_index: which image each region belongs to: of the pair, or of the example (`number_images`).
        beyond: sum of the features that `max_regions` cut off, and the number of these regions.
        pixels: the picture, normalized.
        resized: width and height of the resized picture to which boxes were clipped.
        vector: sentence vector of the text.
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
    """Converts pairs to rows. It belongs to a model like its vocabulary, and is saved with the model.

    Args:
        text: tokenizer, for models that read tokens.
        vectors: sentence vectors, for models that read them.
        image_size: side in pixels of the square that pictures are resized to, for models that read pixels.
        square: resizes pictures to a square and normalizes them for CLIP; replaces `image_size`.
        prepare: resizes pictures and keeps their aspect ratio, for end-to-end models. These read the boxes of
            regions only.
        grid: rows and columns of the boxes that are used if none are given, for end-to-end models.
        whole_image: put a box around the whole picture before the others, for end-to-end models.
        regions: whether the model reads regions.
        max_tokens: largest number of tokens, special tokens included. Longer texts are truncated.
        max_regions: largest number of regions per image. A store holds the best regions first, so the rest is
            cut off. It still counts in the mean that some models use for the whole image.
        labels: keep the detector's labels, scores and probabilities, which some objectives of pre-training
            need.
        tags: use the detected object names as the second segment of the text.
        text_b: second segment of pairs that have none. VL-BERT answers questions at such a `[MASK]`, with
            `model.readout=before_end`.
        text_end: end of every text, which replaces its own question marks. uclanlp's VisualBERT answers
            questions at the end `? [MASK]`.
        missing: how to treat an image without regions. `error` stops. `none` keeps it with zero regions.
            `skip` leaves its examples out of training and validation; predictions must be complete, so there
            it acts like `none`.
        number_images: number the images of an example across its pairs, as UNITER's NLVR2 does: regions of
            the second pair's image get another segment. Otherwise, every pair begins with image 0.
        box_scale: `size` divides x by the width and y by the height. `swapped` reproduces nav13n's UNITER,
            which divides x by the height and y by the width.
        clip_boxes: sides of the resized picture in pixels: the shorter side, and the limit of the longer one.
            Boxes are clipped to the last pixel of that picture. VL-BERT does so with precomputed features,
            too.
        max_row: largest number of tokens and regions of a row with regions, that of the whole image included:
            64 in VL-BERT's pre-training (see `diptych.data.cutting`).
        bare_texts: pairs without image have no `[CLS]` and `[SEP]`, as the corpora of VL-BERT's pre-training.
        one_segment: the second text has the segment of the first, as the two languages of MM-BERT.

    Raises:
        ConfigError: a setting is outside of its range, or settings exclude each other.
    """

    def __init__(
        self,
        *,
        text: Tokenizer | None = None,
        vectors: FastText | None = None,
        image_size: int | None = None,
        square: SquareTransform | None = None,
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
        number_images: bool = False,
        box_scale: str = "size",
        clip_boxes: Sequence[int] | None = None,
        max_row: int | None = None,
        bare_texts: bool = False,
        one_segment: bool = False,
    ) -> None:
        if missing not in MISSING or box_scale not in ("size", "swapped"):
            raise ConfigError(
                f"processor.missing is {missing!r} (expected one of {MISSING}), "
                f"processor.box_scale is {box_scale!r} (expected 'size' or 'swapped')."
            )
        _require_sizes(image_size=image_size, max_tokens=max_tokens, max_regions=max_regions, max_row=max_row)
        # Whether no other setting of pixels or boxes is in use, which an end-to-end model would contradict.
        alone = regions and image_size is None and square is None and box_scale == "size"
        _require_end_to_end(prepare, grid, whole_image=whole_image, alone=alone and clip_boxes is None)
        if image_size is not None and square is not None:
            raise ConfigError("processor.image_size and processor.square exclude each other; set one.")
        if clip_boxes is not None and (len(clip_boxes) != 2 or min(clip_boxes) < 1 or box_scale != "size"):
            raise ConfigError(
                f"processor.clip_boxes is {list(clip_boxes)} and processor.box_scale {box_scale!r}; expected "
                "the pixels of the shorter and the longer side, such as [600, 1000], and 'size'."
            )
        self.text, self.vectors, self.image_size, self.regions = text, vectors, image_size, regions
        self.square, self.prepare, self.grid, self.whole_image = square, prepare, grid, whole_image
        self.max_tokens, self.max_regions, self.labels = max_tokens, max_regions, labels
        self.tags, self.text_b, self.text_end = tags, text_b, text_end
        self.frame = None
        if clip_boxes is not None:  # `truncate`: VL-BERT rounds sizes down, and clips to that size
            self.frame = DetectorTransform(least=clip_boxes[0], most=clip_boxes[1], truncate=True)
        self.missing, self.box_scale, self.number_images = missing, box_scale, number_images
        self.max_row, self.bare_texts, self.one_segment = max_row, bare_texts, one_segment

    @property
    def provides(self) -> frozenset[str]:
        """The modalities in a row, named as in `needs` of a model."""
        present = {
            "text": self.text is not None,
            "vectors": self.vectors is not None,
            "pixels": any(one is not None for one in (self.image_size, self.square, self.prepare)),
            "regions": self.regions,
        }
        return frozenset(name for name, given in present.items() if given)

    @property
    def mirrors(self) -> bool:
        """Whether pictures can be mirrored: features of a detector cannot."""
        return "pixels" in self.provides and (self.prepare is not None or not self.regions)

    def rows(self, example: Example, sources: Sources) -> list[Row]:
        """Convert all pairs of an example, each as `__call__` does."""
        # `images` counts the images of earlier pairs,
        # so that the second pair's image gets a number of its own.
        rows, images = [], 0
        for pair in example.pairs:
            rows.append(self(pair, sources, first_image=images if self.number_images else 0))
            images += len(image_keys(pair))
        return rows

    def __call__(self, pair: Pair, sources: Sources, *, first_image: int = 0) -> Row:
        """Convert one pair to the row that the model needs.

        Args:
            first_image: number of the pair's first image in `image_index`.

        Raises:
            MissingFeatures: the store has no regions of the image.
            FormatError: the picture is missing or cannot be read.
        """
        keys, images = image_keys(pair), self.regions_of(pair, sources.regions)
        # Tags come from the labels of regions, which `boxes_alone` may drop, so tokens are made first.
        tokens = self._tokens(pair, images, sources.regions) if self.text is not None else None
        # End to end, a text without a picture has no regions, as with features: a passage of a corpus.
        seen = "pixels" in self.provides and bool(keys or self.prepare is None)
        pixels = self._pixels(keys, sources.images) if seen else None
        if pair.mirrored and pixels is not None:
            pixels = pixels.flip(-1)  # after resizing, as in VL-BERT
        if self.prepare is not None:
            images = [boxes_alone(images[0], pixels, whole_image=self.whole_image, mirrored=pair.mirrored)]
        if self.max_row is not None and tokens is not None:
            tokens, images = cut_row(tokens, images, most=self.max_row, whole=self.added)
        count = sum(map(len, images))
        return Row(
            tokens=in_one_segment(tokens) if tokens and self.one_segment else tokens,
            more_tokens=self._more_tokens(pair),
            mentions=self._mentions(pair, tokens, count) if tokens and pair.mentions else None,
            regions=joined(images) if images else None,
            boxes=np.concatenate([self._normalize(regions) for regions in images]) if images else None,
            image_index=first_image + np.repeat(np.arange(len(images)), [len(regions) for regions in images])
            if images
            else None,
            beyond=self._beyond(keys, sources.regions, [len(one) for one in images]),
            pixels=pixels,
            resized=self.frame.resized(*images[0].size) if self.frame and images else None,
            vector=self.vectors.vector(pair.text) if self.vectors is not None else None,
        )

    def regions_of(self, pair: Pair, source: RegionSource | None) -> list[Regions]:
        """The regions of each image of a pair that the model reads; none for models without regions."""
        # A pair without image gets zero regions, so that all rows of a batch have the same parts.
        return [self._regions(key, source) for key in image_keys(pair) or (None,)] if self.regions else []

    def texts(self, pair: Pair, images: list[Regions], source: RegionSource | None) -> tuple[str, str | None]:
        """The first and the second text as they are tokenized; `Tokens.offsets` count their characters."""
        return self._first(pair), self._tags(images, source) if self.tags else self._second(pair)

    def with_text(self, row: Row, pair: Pair, regions: RegionSource | None = None) -> Row:
        """A row with the text of `pair` in place of its own; `regions` is the source of object names."""
        images = self.regions_of(pair, regions) if self.tags else []
        return replace(
            row,
            tokens=None if self.text is None else self._tokens(pair, images, regions),
            vector=None if self.vectors is None else self.vectors.vector(pair.text),
        )

    def length(self, example: Example, regions: RegionSource | None = None) -> int:
        """Tokens plus regions of the longest row of an example, to which a batch is padded.

        Pictures do not count, because they all cost the same.
        """
        return max(self._pair_length(pair, regions) for pair in example.pairs)

    def _pair_length(self, pair: Pair, regions: RegionSource | None) -> int:
        keys = [key for key in image_keys(pair) if regions is not None and key in regions]
        text, seen = 0, 0  # must equal `stream.lengths_of`, which computes them from columns
        if self.text is not None:
            # A store memory-maps labels and features apart, so reading the tags reads no features from disk.
            images = [self._regions(key, regions) for key in keys] if self.regions and self.tags else []
            text = len(self._tokens(pair, images, regions))
        if self.regions and regions is not None:
            seen = sum(min(regions.count(key), self.max_regions) for key in keys) + self.whole_image
        counts = (np.array([count], np.int32) for count in (text, seen))
        return int(lengths_of_rows(*counts, most=self.max_row, whole=self.added)[0])

    @property
    def added(self) -> int:
        """Regions of a whole image that a model adds, where the processor itself does not: 1 or 0."""
        return int(not self.whole_image)

    def _first(self, pair: Pair) -> str:
        # Some data sets have the question mark, some a space before it, some leave it out.
        return pair.text if self.text_end is None else f"{pair.text.rstrip('? ')} {self.text_end}"

    def _second(self, pair: Pair) -> str | None:
        return self.text_b if pair.text_b is None else pair.text_b

    def _tokens(self, pair: Pair, images: list[Regions], source: RegionSource | None) -> Tokens:
        assert self.text is not None, "checked by the callers"
        text, text_b = self.texts(pair, images, source)
        if self.bare_texts and pair.image is None and text_b is None:
            return without_ends(self.text.encode(text, max_tokens=self.max_tokens + 2))
        return self.text.encode(text, text_b, max_tokens=self.max_tokens)

    def cuts(self, pair: Pair) -> bool:
        """Whether `max_tokens` cuts the text of a pair; object names do not count."""
        if self.text is None:
            return False
        # Tags are left out: that a list of object names is cut is usual, and no reason for a warning.
        whole = self.text.encode(self._first(pair), self._second(pair), max_tokens=1 << 28)
        return len(whole) > self.max_tokens

    def _more_tokens(self, pair: Pair) -> tuple[Tokens, ...]:
        if self.text is None:
            return ()
        return tuple(self.text.encode(text, max_tokens=self.max_tokens) for text in pair.more_texts)

    def _mentions(self, pair: Pair, tokens: Tokens, regions: int) -> Int[ndarray, " T"]:
        """Index of the region that each token names, or -1. `regions` is the number of regions in the row."""
        named, first = np.full(len(tokens), -1), int(self.whole_image)
        for mention in pair.mentions:
            # The region may have been cut off by `max_regions`; tags replace the second segment.
            if not 0 <= mention.region < regions - first or (self.tags and mention.segment):
                continue
            for token, (start, stop) in enumerate(tokens.offsets):
                # Special tokens have the empty range (0, 0), which overlaps with nothing.
                inside = start < mention.stop and stop > mention.start
                if inside and tokens.segments[token] == mention.segment:
                    named[token] = mention.region + first
        return named

    def _regions(self, key: str | None, source: RegionSource | None) -> Regions:
        """Regions of an image; zero regions for a pair without image."""
        assert source is not None, "checked by require_sources()"
        if key is None or (key not in source and self.missing != "error"):
            meta = source.meta
            return Regions(
                features=np.zeros((0, meta.feature_dim), np.float32),
                boxes=np.zeros((0, 4), np.float32),
                size=(1, 1),  # not (0, 0): sizes divide boxes
            )
        return source[key].first(self.max_regions)

    def _beyond(
        self, keys: tuple[str, ...], source: RegionSource | None, kept: list[int]
    ) -> tuple[Float[Tensor, " F"], int] | None:
        if source is None or not self.regions or self.prepare is not None:
            return None
        both = zip(keys, kept, strict=False)  # a pair without image has zero regions of no key
        cut = [(key, most) for key, most in both if key in source and source.count(key) > most]
        if not cut:
            return None
        rest = np.concatenate([source[key].features[most:] for key, most in cut])
        # torch converts float16 ten times as fast as NumPy
        return torch.from_numpy(rest).float().sum(0), len(rest)

    def _normalize(self, regions: Regions) -> Float[ndarray, "R 4"]:
        width, height = regions.size
        scale = (width, height) if self.box_scale == "size" else (height, width)
        # `scale * 2` repeats a tuple: (width, height, width, height), for x1 y1 x2 y2.
        boxes = regions.boxes / np.array(scale * 2, np.float32)
        last = (
            1 if self.frame is None else 1 - 1 / np.array(self.frame.resized(*regions.size) * 2, np.float32)
        )
        # Swapped boxes exceed 1 by design; the original does not clip them.
        return boxes.clip(0, last) if self.box_scale == "size" else boxes

    def _tags(self, images: list[Regions], source: RegionSource | None) -> str:
        names = source.meta.classes if source is not None else ()
        return " ".join(
            names[label] for regions in images if regions.labels is not None for label in regions.labels
        )

    def _pixels(self, keys: tuple[str, ...], images: Mapping[str, Any] | None) -> Float[Tensor, "3 h w"]:
        assert images is not None, "checked by require_sources()"
        if len(keys) != 1:
            raise ConfigError(f"a pair has {len(keys)} images; models that read pixels take exactly one.")
        image = open_image(images[keys[0]])
        # Only end-to-end models keep the aspect ratio; all others read a square.
        if self.image_size is not None:
            return to_pixels(image, self.image_size)
        try:
            if self.square is not None:
                return self.square(image)
            assert self.prepare is not None, "checked by the caller"
            return self.prepare(image).pixels
        except FormatError as error:
            raise FormatError(f"{images[keys[0]]}: {error}") from error


def _require_end_to_end(
    prepare: DetectorTransform | None, grid: Sequence[int] | None, *, whole_image: bool, alone: bool
) -> None:
    """Check the settings of end-to-end models.

    Args:
        alone: regions are read, and no other setting of pixels or boxes is in use.
    """
    if prepare is None and (grid is not None or whole_image):
        raise ConfigError("processor.grid and processor.whole_image need processor.prepare.")
    if prepare is not None and not alone:
        raise ConfigError(
            "processor.prepare is for models that read pixels and boxes; it needs regions=true "
            "and excludes image_size, box_scale and clip_boxes."
        )
    if grid is not None and (len(grid) != 2 or min(grid) < 1 or max(grid) > 100):
        raise ConfigError(
            f"processor.grid is {list(grid)}; expected numbers of rows and columns from 1 to 100, such as "
            "[4, 4]."
        )


def _require_sizes(**sizes: int | None) -> None:
    most = {"image_size": MOST}  # a larger square would fill the memory
    for name, size in sizes.items():
        if size is not None and not 1 <= size <= most.get(name, size):
            limit = f" to {most[name]}" if name in most else ""
            raise ConfigError(f"processor.{name} is {size}; expected a number from 1{limit}.")


def image_keys(pair: Pair) -> tuple[str, ...]:
    """Return the image keys of a pair: none, one or several."""
    if pair.image is None:
        return ()
    return (pair.image,) if isinstance(pair.image, str) else pair.image
