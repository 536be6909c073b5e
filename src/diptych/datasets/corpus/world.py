"""Text corpora of the miniature world: documents in which things are described, a sentence per line."""

import gzip
from pathlib import Path

import numpy as np

from diptych.datasets.base import require_size
from diptych.datasets.scene_world import VOCABULARY_SIZE
from diptych.text import learn_vocabulary, write_vocabulary
from diptych.types import Progress
from diptych.world import captions, new_scene

SMALLEST, LARGEST = 20, 1_000_000
LINES = 6  # of a document, at most
SHARES = {"wiki.doc": 5, "bc1g.doc": 2, "held.txt.gz": 1}  # of eight documents


def write_world(folder: Path, *, size: int, seed: int, progress: Progress | None) -> dict[str, int]:
    """Write two corpora with VL-BERT's names, a packed one for validation, and a vocabulary.

    As real ones do, they have empty lines between documents, a long line, and one lacks its last line end.

    Args:
        size: number of documents.

    Returns:
        Number of passages of each file, of 64 words.
    """
    from diptych.datasets.corpus.split import Corpus

    require_size(size, seed, smallest=SMALLEST, largest=LARGEST, noun="documents")
    documents = []
    for number in range(size):
        documents.append(_document(np.random.default_rng([seed, number])))
        if progress is not None:
            progress(number + 1, size)
    first, counts = 0, dict[str, int]()
    for name, share in SHARES.items():
        last = size if name == [*SHARES][-1] else first + size * share // 8
        content = "\n\n".join("\n".join(lines) for lines in documents[first:last]).encode()
        # the time of day would differ in the packed file
        (folder / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
        counts[name.partition(".")[0]] = len(Corpus(folder, name.partition(".")[0]))
        first = last
    texts = [line for lines in documents for line in lines]
    write_vocabulary(folder / "vocabulary.txt", learn_vocabulary(texts, VOCABULARY_SIZE))
    return counts


def _document(generator: np.random.Generator) -> list[str]:
    """Captions of one scene; in some documents all of them are one line."""
    scene = new_scene(generator, "warm" if generator.random() < 0.5 else "cool")
    lines = [sentence for _ in range(LINES // 2) for sentence in captions(generator, scene)][:LINES]
    return [" ".join(4 * lines)] if generator.random() < 0.1 else lines
