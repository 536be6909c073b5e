"""Finds pictures that look alike, also under other words.

A picture becomes a perceptual hash and a grid of 16 x 16 mean colors. Two pictures are the same under other
words if most cells of their grids agree: words cover a part of the cells and leave the others as they are.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt64
from numpy import ndarray
from PIL import Image

from diptych.datasets.hashes import perceptual_hash
from diptych.errors import FormatError
from diptych.images import open_image
from diptych.types import Progress

SIDE = 16  # cells per side
CLOSE = 4  # largest difference of a cell, in each channel, of 255: what JPEG does to a flat area
SAME = 0.65  # share of cells that agree if only the words differ
BITS = 4  # bits of 64 in which the hashes of copies may differ, as after scaling and compression
CANDIDATES = 32  # neighbors of a picture that are compared cell by cell
MOST = 40_000  # pictures that are compared with each other; the time grows with the square
CHUNK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Grids:
    """P pictures.

    Args:
        hashes: perceptual hashes, see `diptych.datasets.hashes`.
        colors: mean colors of the cells, 0 to 255.
    """

    hashes: UInt64[ndarray, " P"]
    colors: UInt8[ndarray, "P side side 3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """K pairs of pictures that look alike, first number below second.

    Args:
        copies: whether the words look alike, too: hash and colors agree.
    """

    pairs: Int[ndarray, "K 2"]
    copies: Bool[ndarray, " K"]


def read_grids(paths: Sequence[Path], progress: Progress | None = None) -> Grids:
    """Read every picture once, in threads: decoding releases Python's global lock.

    Raises:
        FormatError: a picture is missing or cannot be read; names the first and the number of others.
    """
    hashes = np.zeros(len(paths), np.uint64)
    colors = np.zeros((len(paths), SIDE, SIDE, 3), np.uint8)
    bad: list[FormatError] = []
    with ThreadPoolExecutor() as pool:
        for row, found in enumerate(pool.map(_grid, paths)):
            if isinstance(found, FormatError):
                bad.append(found)
            else:
                hashes[row], colors[row] = found
            if progress is not None:
                progress(row + 1, len(paths))
    if bad:
        more = f" {len(bad) - 1} more: `diptych check` lists all." if bad[1:] else ""
        raise FormatError(f"{bad[0]}{more}")
    return Grids(hashes=hashes, colors=colors)


def _grid(path: Path) -> tuple[int, UInt8[ndarray, "side side 3"]] | FormatError:
    try:
        # A multiple of the grid and of the hash, so that JPEGs decode several times faster.
        image = open_image(path, at_least=8 * SIDE)
    except FormatError as error:
        return error
    cells = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return perceptual_hash(image), np.asarray(cells)


def alike(grids: Grids) -> Alike:
    """Find pairs of pictures that look alike; of more than `MOST`, only those of equal hashes."""
    count = len(grids.hashes)
    # Equal hashes side by side.
    order = np.argsort(grids.hashes, kind="stable")
    equal = grids.hashes[order[:-1]] == grids.hashes[order[1:]]
    found = [np.stack((order[:-1][equal], order[1:][equal]), axis=1)]
    if 1 < count <= MOST:
        found.append(_neighbors(grids.colors.reshape(count, -1).astype(np.float32)))
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    agree = np.concatenate(
        [_agreement(grids.colors, pairs[at : at + CHUNK]) for at in range(0, len(pairs), CHUNK)]
        or [np.zeros(0)]
    )
    bits = np.bitwise_count(grids.hashes[pairs[:, 0]] ^ grids.hashes[pairs[:, 1]])
    kept = agree >= SAME
    return Alike(pairs=pairs[kept], copies=(bits <= BITS)[kept])


def _neighbors(colors: Float[ndarray, "P F"]) -> Int[ndarray, "K 2"]:
    """Each picture with the pictures of the nearest colors."""
    count, squares = len(colors), (colors**2).sum(axis=1)
    most = min(CANDIDATES, count - 1)
    found = []
    for at in range(0, count, CHUNK):
        rows = np.arange(at, min(at + CHUNK, count))
        # All distances by one matrix product, which is why this is exact up to tens of thousands.
        distances = squares[rows, None] + squares - 2 * colors[rows] @ colors.T
        distances[np.arange(len(rows)), rows] = np.inf
        nearest = np.argpartition(distances, most - 1, axis=1)[:, :most]
        found.append(np.stack((np.repeat(rows, most), nearest.ravel()), axis=1))
    return np.concatenate(found)


def _agreement(colors: UInt8[ndarray, "P side side 3"], pairs: Int[ndarray, "K 2"]) -> Float[ndarray, " K"]:
    """Share of cells that agree; of flat pictures, of the cells that show something."""
    first, second = (colors[pairs[:, side]].astype(np.int16).reshape(len(pairs), -1, 3) for side in (0, 1))
    close = np.abs(first - second).max(axis=2) <= CLOSE
    # Two white screenshots agree wherever they are white, which says nothing about what they show.
    shown = [
        np.abs(one - np.median(one, axis=1, keepdims=True)).max(axis=2) > 3 * CLOSE for one in (first, second)
    ]
    drawn = shown[0] | shown[1]
    total = drawn.sum(axis=1)
    of_drawn = np.where(total > 0, (close & drawn).sum(axis=1) / np.maximum(total, 1), 1.0)
    return np.asarray(np.minimum(close.mean(axis=1), of_drawn))
