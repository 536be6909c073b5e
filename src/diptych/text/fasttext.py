"""fastText sentence vectors: training and reading, with `floret`, a fork of fastText.

In its default mode floret trains the same vectors as fastText, bit for bit. Its files have two more numbers
in the header. Given a file of fastText or a damaged file, its reader never returns: files are checked first.
"""

import errno
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.errors import ConfigError, FormatError, missing_library
from diptych.files import atomic_file, require_new, reserved

# Training settings of two predecessors, as arguments of `train_fasttext`. Both trained on many threads, so
# their exact vectors cannot be reproduced.
DRIVENDATA = {"model": "cbow", "dim": 150, "bucket": 2_000_000, "line_suffix": "/n"}
NAV13N = {"model": "skipgram", "dim": 100, "min_count": 1, "epochs": 100, "bucket": 2_000_000}


def train_fasttext(
    texts: Iterable[str],
    out: Path | str,
    *,
    model: Literal["cbow", "skipgram"] = "cbow",
    dim: int = 150,
    min_count: int = 5,
    epochs: int = 5,
    lr: float = 0.05,
    window: int = 5,
    min_n: int = 3,
    max_n: int = 6,
    negatives: int = 5,
    bucket: int = 200_000,
    threads: int = 1,
    line_suffix: str = "",
    overwrite: bool = False,
) -> None:
    """Train word and subword vectors on texts and write them to `out` (a fastText `.bin`).

    Args:
        min_count: words with fewer occurrences have subword vectors only.
        min_n: length of the shortest subword in characters.
        max_n: length of the longest subword in characters; 0 trains whole words only.
        bucket: rows for hashed subwords. fastText's own default is 2,000,000, a file of 1.2 GB at `dim=150`.
        threads: number of threads; results are reproducible with 1 only.
        line_suffix: appended to every text. "/n" reproduces a mistake of the DrivenData baseline, which
            meant a line break.

    Raises:
        ConfigError: `floret` is not installed, `out` exists, or the settings and texts give no vectors.
    """
    out = Path(out)
    require_new(out, overwrite=overwrite, kind="a fastText model")
    positive = {"dim": dim, "epochs": epochs, "window": window, "negatives": negatives, "threads": threads}
    positive |= {"bucket": bucket, "min_count": min_count}
    if wrong := {name: value for name, value in positive.items() if value < 1}:
        raise ConfigError(f"fastText cannot be trained with {wrong}; expected at least 1.")
    floret = _floret()
    with _workplace(out, overwrite=overwrite) as folder:
        lines, trained = Path(folder, "lines.txt"), Path(folder, "vectors.bin")
        with lines.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(f"{_one_line(text)}{line_suffix}\n" for text in texts)
        try:
            vectors = floret.train_unsupervised(
                input=str(lines), model=model, dim=dim, minCount=min_count, epoch=epochs, lr=lr, ws=window,
                minn=min_n, maxn=max_n, neg=negatives, bucket=bucket, thread=threads, verbose=0,
            )  # fmt: skip
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"fastText could not be trained: {error} (model={model!r}, min_count={min_count}, lr={lr})"
            ) from error
        vectors.save_model(str(trained))
        try:
            _read_layout(trained)
        except FormatError as error:  # floret does not report a full disk, but leaves a truncated file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out)) from error
        with trained.open("rb") as source, atomic_file(out) as target:
            shutil.copyfileobj(source, target)


@contextmanager
def _workplace(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder beside `out`, which stays reserved for this process."""
    folder = out.with_name(f".{out.name}.training")
    with reserved(out, overwrite=overwrite, kind="a fastText model"):
        shutil.rmtree(folder, ignore_errors=True)  # leftover of a process that was killed
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class FastText:
    """Sentence vectors from a `.bin` file of `train_fasttext` or of fastText itself.

    The vector of a text is the mean of its words' vectors, each scaled to unit length. The vector of a word
    is the mean of its own and its subwords' vectors. Zero vectors do not count. Pickling keeps the path only.

    Raises:
        FormatError: the file is damaged, quantized, or holds a classifier.
        ConfigError: `floret` is not installed.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self._vectors = _load(self.path)
        self.dim: int = self._vectors.get_dimension()

    def __reduce__(self) -> tuple[type["FastText"], tuple[Path]]:
        return FastText, (self.path,)

    def vector(self, text: str) -> Float[ndarray, " E"]:
        """Return the sentence vector in float32; zeros for an empty text."""
        vector: ndarray = self._vectors.get_sentence_vector(_one_line(text))
        return vector

    def vectors(self, texts: Sequence[str]) -> Float[ndarray, "N E"]:
        """Return the sentence vectors of several texts, one row each."""
        return np.array([self.vector(text) for text in texts], np.float32).reshape(len(texts), self.dim)


def _one_line(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8").replace("\n", " ")


def _floret() -> Any:
    try:
        import floret
    except Exception as error:
        raise missing_library("fastText vectors need floret", "fasttext", error) from error
    return floret


def _load(path: Path) -> Any:
    floret = _floret()
    if _read_layout(path) == "floret":
        return floret.load_model(str(path))
    # Insert the two header numbers that floret expects into a copy of fastText's file.
    with tempfile.NamedTemporaryFile(suffix=".bin") as copy, path.open("rb") as source:
        copy.write(source.read(_MODE_AT))
        copy.write(struct.pack("<2i", _FASTTEXT_MODE, 1))
        shutil.copyfileobj(source, copy)
        copy.flush()
        return floret.load_model(copy.name)


_MAGIC, _VERSION = 793712314, 12
_ARGS = struct.Struct("<13i")  # magic, version, then 11 of fastText's settings
_MODE_AT = _ARGS.size  # where floret inserts its mode and its number of hashes
_FASTTEXT_MODE = 1
_DICTIONARY = struct.Struct("<idiiiqq")  # two more settings, entries, words, labels, tokens, pruned entries
_MATRIX = struct.Struct("<?qq")  # quantized, rows, columns; then the float32 numbers


def _read_layout(path: Path) -> Literal["floret", "fasttext"]:
    """Check the structure of a file and return which program wrote it.

    Raises:
        FormatError: the file has another length than its header says, or does not hold word vectors.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _follow(data)
    except (ValueError, struct.error) as error:
        reason = error if isinstance(error, ValueError) else "it is cut short"
        raise FormatError(
            f"{path}: {reason}; expected a complete .bin of unsupervised fastText vectors, as `diptych "
            "fasttext` writes it. Train or download it again."
        ) from error


def _follow(data: mmap.mmap) -> Literal["floret", "fasttext"]:
    magic, version, dim, *_, model, bucket, _, max_n = _ARGS.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION):
        raise ValueError(f"it starts with {magic} {version} instead of {_MAGIC} {_VERSION}")
    if model not in (1, 2) or dim < 1 or bucket < (max_n > 0):
        raise ValueError(f"it holds model {model}, dim {dim}, bucket {bucket}, or it is a classifier")
    # In fastText's files other fields have these bytes, with other values, which tells the formats apart.
    mode, hashes = struct.unpack_from("<2i", data, _MODE_AT)
    floret = mode == _FASTTEXT_MODE and hashes == 1
    at = _MODE_AT + (8 if floret else 0)
    _, _, entries, words, labels, _, pruned = _DICTIONARY.unpack_from(data, at)
    if entries != words + labels or min(words, labels) < 0 or pruned != -1:
        raise ValueError(f"its dictionary has {words} words and {labels} labels in {entries} entries")
    at += _DICTIONARY.size
    for _ in range(entries):  # a word, a zero, its count and its kind
        # Words have no length in the file; only walking over all of them finds where the matrices begin.
        end = data.find(b"\0", at)
        if end < 0:
            raise ValueError("it ends within its dictionary")
        at = end + 10
    for rows in (words + bucket, words):
        quantized, rows_here, columns = _MATRIX.unpack_from(data, at)
        if quantized or (rows_here, columns) != (rows, dim):
            raise ValueError(
                f"a matrix is {rows_here} x {columns} instead of {rows} x {dim}, or it is quantized"
            )
        at += _MATRIX.size + 4 * rows * dim
    if at != len(data):
        raise ValueError(f"it has {len(data)} bytes instead of {at}")
    return "floret" if floret else "fasttext"
