"""Collation: pad rows to the longest one, mask the padding and encode the targets."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from diptych.data.bare import last_column
from diptych.data.processor import Processor, Row, Sources, image_keys
from diptych.data.stream import lengths_of, stream
from diptych.errors import ConfigError, FormatError
from diptych.images import image_size
from diptych.types import (
    OPTIONAL_REGION_FIELDS,
    Batch,
    Dataset,
    Example,
    Inputs,
    PaddedRegions,
    PaddedText,
    Regions,
    TargetEncoder,
)

T = TypeVar("T")


class Collate:
    """Converts examples to one batch. It can be pickled, because it runs in loader workers.

    Args:
        sources: where the processor finds regions and picture files.
        targets: the task's target encoder. None leaves targets out.
        share: whether rows of the same image share its regions, for models with `shares_regions`.
    """

    def __init__(
        self,
        processor: Processor,
        *,
        sources: Sources | None = None,
        targets: TargetEncoder | None = None,
        share: bool = False,
    ) -> None:
        self.processor, self.sources, self.targets = processor, sources or Sources(), targets
        self.share = share

    def __call__(self, examples: Sequence[Example]) -> Batch:
        tokenizer = self.processor.text
        each = [self.processor.rows(example, self.sources) for example in examples]
        rows = [row for own in each for row in own]
        # An image that is the left one here and the right one there has different numbers in its rows.
        share = self.share and not self.processor.number_images
        pairs = (pair for example in examples for pair in example.pairs)
        images = [(pair.image, pair.mirrored) for pair in pairs] if share else None
        return Batch(
            ids=tuple(example.id for example in examples),
            inputs=pad(
                rows,
                pad_id=tokenizer.pad_id if tokenizer else 0,
                labels=self.processor.labels,
                images=images,
            ),
            targets=None if self.targets is None else self.targets(self._mirrored(examples, each)),
            pairs=len(examples[0].pairs),
            weights=_weights(examples),
            groups=_groups(examples),
        )

    def _mirrored(self, examples: Sequence[Example], rows: Sequence[Sequence[Row]]) -> Sequence[Example]:
        """The examples with the targets of mirrored ones mirrored, if the task has places as targets."""
        mirror = getattr(self.targets, "mirrored", None)
        if mirror is None:
            return examples
        return [
            mirror(one, _last(own[0])) if one.pairs[0].mirrored else one
            for one, own in zip(examples, rows, strict=True)
        ]

    @property
    def mirrors(self) -> bool:
        """Whether pictures can be mirrored, see `Mirrored`."""
        return self.processor.mirrors

    def length(self, example: Example) -> int:
        """The cost of an example in tokens and regions, by which batches are formed."""
        return self.processor.length(example, self.sources.regions)

    def lengths(self, dataset: Dataset) -> Int[ndarray, " N"]:
        """`length` of every example, computed from the columns of the data set if it has any."""
        if type(self).length is not Collate.length:  # the columns know nothing of a subclass's own cost
            return np.array([self.length(example) for example in stream(dataset)])
        return lengths_of(dataset, self.processor, self.sources.regions)

    def aspects(self, dataset: Dataset) -> Int[ndarray, " N"]:
        """1 for examples whose first picture is higher than wide, 0 for others, from the files' headers.

        Raises:
            ConfigError: there are no picture files.
            FormatError: a picture cannot be read.
        """
        images = self.sources.images
        if images is None:
            raise ConfigError("data.aspects needs pictures; remove it for models that read no pixels.")
        known: dict[str, bool] = {}  # pictures with several texts are looked at once
        found = []
        for example in stream(dataset):
            key = next((key for pair in example.pairs for key in image_keys(pair)), None)
            if key is not None and key not in known:
                width, height = image_size(images[key])
                known[key] = height > width
            found.append(key is not None and known[key])
        return np.array(found, np.int64)


def _last(row: Row) -> float:
    return last_column(_given(row.regions).size, _given(row.pixels))


def _weights(examples: Sequence[Example]) -> Float[Tensor, " N"] | None:
    # None instead of ones: without weights, the loss is the plain mean of the originals, bit for bit.
    weights = [example.weight for example in examples]
    return None if all(weight == 1 for weight in weights) else torch.tensor(weights, dtype=torch.float32)


def _groups(examples: Sequence[Example]) -> tuple[str | None, ...] | None:
    groups = tuple(example.group for example in examples)
    return None if all(group is None for group in groups) else groups


def pad(
    rows: Sequence[Row],
    *,
    pad_id: int = 0,
    labels: bool = False,
    images: Sequence[Hashable] | None = None,
) -> Inputs:
    """Stack rows of one processor; texts and regions are padded to the longest row and masked.

    Args:
        pad_id: token id of the padding.
        labels: keep the detector's labels, scores and probabilities of regions, if all rows have them.
        images: image of each row. Regions of equal images are kept once, see `PaddedRegions.shared`.
    """
    head = rows[0]  # all rows come from one processor, so the first one shows which parts there are
    return Inputs(
        text=None if head.tokens is None else _pad_text(rows, pad_id),
        more_texts=_pad_more_texts(rows, pad_id),
        regions=None if head.regions is None else _pad_images(rows, labels, images),
        pixels=None if all(row.pixels is None for row in rows) else _stack_pixels(rows),
        vectors=None
        if head.vector is None
        else torch.from_numpy(np.stack([_given(row.vector) for row in rows])),
    )


def _pad_text(rows: Sequence[Row], pad_id: int) -> PaddedText:
    tokens = [_given(row.tokens) for row in rows]
    shape = (len(rows), max(map(len, tokens)))
    ids = np.full(shape, pad_id, np.int64)
    segments, mask = np.zeros(shape, np.int64), np.zeros(shape, bool)
    mentions = np.full(shape, -1)
    for row, text in enumerate(tokens):
        count = len(text)
        ids[row, :count], segments[row, :count], mask[row, :count] = text.ids, text.segments, True
        if (mentioned := rows[row].mentions) is not None:
            mentions[row, :count] = mentioned
    return PaddedText(
        ids=torch.from_numpy(ids),
        mask=torch.from_numpy(mask),
        segments=torch.from_numpy(segments),
        mentions=None if all(row.mentions is None for row in rows) else torch.from_numpy(mentions),
    )


def _pad_more_texts(rows: Sequence[Row], pad_id: int) -> tuple[PaddedText, ...]:
    counts = {len(row.more_tokens) for row in rows}
    if len(counts) > 1:
        raise FormatError(
            f"pairs of one batch have {min(counts)} to {max(counts)} more_texts; expected the same number in "
            "all pairs of a data set."
        )
    places = range(counts.pop())
    return tuple(_pad_text([Row(tokens=row.more_tokens[place]) for row in rows], pad_id) for place in places)


def _pad_images(rows: Sequence[Row], labels: bool, images: Sequence[Hashable] | None) -> PaddedRegions:
    """Pad regions; with `images`, each image once, in the order in which they first appear."""
    first: dict[Hashable, int] = {}
    for row, image in enumerate(images or ()):
        first.setdefault(image, row)
    if images is None or len(first) == len(rows):
        return _pad_regions(rows, labels)
    number = {image: place for place, image in enumerate(first)}
    regions = _pad_regions([rows[row] for row in first.values()], labels)
    return replace(regions, shared=torch.tensor([number[image] for image in images]))


def _pad_regions(rows: Sequence[Row], labels: bool) -> PaddedRegions:
    """Pad regions; every row has at least one (masked) region, so that no dimension is ever zero."""
    padded = [_given(row.regions) for row in rows]
    count, width = max(1, *map(len, padded)), padded[0].features.shape[1]
    # Stores may hold float16; stay in the stored type while copying, and convert the whole batch at the end.
    dtype = np.result_type(*{regions.features.dtype for regions in padded})
    features = np.zeros((len(rows), count, width), dtype)
    boxes = np.zeros((len(rows), count, 4), np.float32)
    index, mask = np.zeros((len(rows), count), np.int64), np.zeros((len(rows), count), bool)
    for row, (regions, source) in enumerate(zip(padded, rows, strict=True)):
        real = len(regions)
        features[row, :real], boxes[row, :real], mask[row, :real] = (
            regions.features,
            _given(source.boxes),
            True,
        )
        index[row, :real] = _given(source.image_index)
    return PaddedRegions(
        features=torch.from_numpy(features).float(),  # torch converts float16 ten times as fast as NumPy
        boxes=torch.from_numpy(boxes),
        mask=torch.from_numpy(mask),
        image_index=torch.from_numpy(index),
        silhouettes=_pad_silhouettes(padded, count),
        sizes=torch.tensor([regions.size for regions in padded], dtype=torch.float32),
        resized=_resized(rows),
        **_beyond(rows, width),
        **(_pad_labels(padded, count) if labels else {}),
    )


def _pad_silhouettes(images: Sequence[Regions], count: int) -> Float[Tensor, "B R s s"] | None:
    """Pad silhouettes with zeros; regions of unknown silhouettes fill their boxes."""
    sides = {regions.silhouettes.shape[1] for regions in images if regions.silhouettes is not None}
    if not sides:
        return None
    if len(sides) > 1:
        raise FormatError(
            f"silhouettes of one batch have {min(sides)} to {max(sides)} cells; expected equal numbers."
        )
    side = sides.pop()
    full = np.zeros((len(images), count, side, side), np.float32)
    for row, regions in enumerate(images):
        full[row, : len(regions)] = 1 if regions.silhouettes is None else regions.silhouettes
    return torch.from_numpy(full)


def _beyond(rows: Sequence[Row], width: int) -> dict[str, Tensor]:
    if all(row.beyond is None for row in rows):
        return {}  # usual: no image has more than `max_regions`
    # Rows without surplus regions add nothing to the mean.
    nothing = torch.zeros(width), 0
    totals, counts = zip(*(row.beyond or nothing for row in rows), strict=True)
    return {"beyond": torch.stack(totals), "beyond_count": torch.tensor(counts)}


def _pad_labels(images: Sequence[Regions], count: int) -> dict[str, Tensor]:
    """Pad the optional fields that every image with regions has: integers with -1, other numbers with 0."""
    some, padded = [regions for regions in images if len(regions)], {}
    for name in OPTIONAL_REGION_FIELDS:
        values = [getattr(regions, name) for regions in images]
        first = next((value for value in values if value is not None), None)
        # A field that some image lacks is left out: its padding would look like labels of real regions.
        if first is None or any(getattr(regions, name) is None for regions in some):
            continue
        whole = np.issubdtype(first.dtype, np.integer)
        # -1 is no class of any detector, so padding can never count as a label.
        full = np.full(
            (len(images), count, *first.shape[1:]), -1 if whole else 0, np.int64 if whole else np.float32
        )
        for row, value in enumerate(values):
            full[row, : 0 if value is None else len(value)] = 0 if value is None else value
        padded[name] = torch.from_numpy(full)
    return padded


def _resized(rows: Sequence[Row]) -> Float[Tensor, "B 2"] | None:
    # `shape[:0:-1]` of (3, height, width) is (width, height).
    sizes = [row.resized if row.pixels is None else row.pixels.shape[:0:-1] for row in rows]
    if all(size is None for size in sizes):
        return None
    # Texts without a picture; not 0, because sizes divide boxes.
    return torch.tensor([(1, 1) if size is None else size for size in sizes], dtype=torch.float32)


def _stack_pixels(rows: Sequence[Row]) -> Float[Tensor, "B 3 h w"]:
    """Stack pictures; smaller ones are padded with zeros on the right and below, and texts have zeros."""
    first = next(row.pixels for row in rows if row.pixels is not None)
    pictures = [first[:, :0, :0] if row.pixels is None else row.pixels for row in rows]
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (1, 2))
    if all(picture.shape[1:] == (height, width) for picture in pictures):
        return torch.stack(pictures)
    # The boxes stay valid: they are scaled by `resized`, the size of each picture without the padding.
    padded = pictures[0].new_zeros(len(pictures), 3, height, width)
    for row, picture in zip(padded, pictures, strict=True):
        row[:, : picture.shape[1], : picture.shape[2]] = picture
    return padded


def _given(value: T | None) -> T:
    """Narrow the type of a part; rows of one processor all have the same parts."""
    assert value is not None, "the rows come from different processors"
    return value
