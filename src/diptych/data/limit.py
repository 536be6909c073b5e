"""The examples of the first images, for trials on little data: `limit` of a run."""

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from diptych.data.processor import image_keys
from diptych.data.stream import rows_of, stream
from diptych.data.subset import Subset
from diptych.errors import ConfigError, nearest
from diptych.types import Dataset, RegionSource

Limit = int | str | None
SIZES = {"tiny": 512, "fast": 5000}  # images, as LXMERT's `--tiny` and `--fast`
PRETRAINING_TINY = 500  # LXMERT's pre-training has a number of its own


def image_limit(limit: Limit, *, pretraining: bool = False) -> int | None:
    """The number of images that a limit stands for; None for no limit.

    Args:
        limit: `tiny` (512 images, 500 in pre-training), `fast` (5,000) or a number.

    Raises:
        ConfigError: the limit is something else.
    """
    if limit is None:
        return None
    if isinstance(limit, str) and limit in SIZES:
        return PRETRAINING_TINY if pretraining and limit == "tiny" else SIZES[limit]
    # `isdigit` also accepts digits such as a superscript two, for which `int` fails.
    number = int(limit) if isinstance(limit, str) and limit.isascii() and limit.isdigit() else limit
    # `True` is an int for Python; as a limit it is a mistake.
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        close = nearest(limit, SIZES) if isinstance(limit, str) else ""
        raise ConfigError(f"limit is {limit!r}; expected tiny, fast or a number of images from 1.{close}")
    return number


def first_images(dataset: Dataset, limit: int | None, regions: RegionSource | None) -> Dataset:
    """All examples whose images are among the first ones of each feature store, in the order of the store.

    Without a store, the images that the data set names first. A data set none of whose images is among the
    first ones, such as a validation split at the end of a store, keeps its own first ones. Examples without
    image are kept.

    Args:
        limit: number of images; None keeps all.
    """
    if limit is None:
        return dataset
    rows = rows_of(dataset)
    if rows is None:
        return Subset(dataset, _without_columns(dataset, limit, regions))
    from diptych.datasets.chosen import rows_with  # which loads pyarrow

    keys, codes = rows.coded_images()
    return Subset(dataset, rows_with(rows, _first(keys.to_pylist(), limit, regions), codes))


def _first(keys: list[str], limit: int, regions: RegionSource | None) -> Bool[ndarray, " K"]:
    """Which of these images, in order of appearance, are kept."""
    rows_in = getattr(regions, "rows_of", None)
    # The original limits the rows that it reads from the feature file, so the order of the store counts. A
    # store gives the row -1 for an image that it does not have.
    places = np.arange(len(keys)) if rows_in is None else rows_in(keys)
    kept: ndarray = (places >= 0) & (places < limit)
    if not kept.any():
        known = np.flatnonzero(places >= 0)
        kept[known[np.argsort(places[known], kind="stable")][:limit]] = True
    return kept


def _without_columns(dataset: Dataset, limit: int, regions: RegionSource | None) -> ndarray:
    each = [[key for pair in one.pairs for key in image_keys(pair)] for one in stream(dataset)]
    keys = [*dict.fromkeys(key for some in each for key in some)]
    kept = dict(zip(keys, _first(keys, limit, regions).tolist(), strict=True))
    return np.array([row for row, some in enumerate(each) if all(kept[key] for key in some)], np.int64)
