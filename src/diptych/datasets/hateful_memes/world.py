"""A miniature world in the format of Hateful Memes."""

import json
from pathlib import Path
from typing import Any

from diptych.datasets.hateful_memes.records import Meme, write_answers, write_memes
from diptych.datasets.miniature import Meme as Drawn
from diptych.datasets.miniature import Miniature
from diptych.files import atomic_file
from diptych.types import Progress

DESCRIPTION = "world.json"
TRUTH = "truth.jsonl"
LABEL_MEANING = (
    "1 (hateful) if the largest thing in the picture has the kind of color, warm or cool, that the text "
    "complains about; 0 (benign) otherwise"
)
README = """# A miniature world of memes

{size} little memes made by `diptych world` with seed {seed}, in the layout of the Hateful Memes challenge.

A text complains about warm colors (ruby, gold, orange) or about cool ones (blue, teal, purple). A meme is
`hateful` (1) if the largest thing in its picture has the kind of color that the text complains about, else
`benign` (0). Memes come in fours, two pictures by two texts, so neither picture nor text alone is enough.

- `train`, `dev_seen`, `dev_unseen`, `test_seen`, `test_unseen` `.jsonl`: `id`, `img`, `label`, `text`; the
  test splits without `label`, which `test_*.answers.jsonl` hold. `dev_unseen` shares most of `dev_seen`.
- `img/`: the pictures, with the text on them.
- `features/`, `features.tsv`: regions of a simulated detector, as a feature store and as a TSV.
- `vocabulary.txt`: WordPiece vocabulary of the world's language.
- `truth.jsonl`: why each meme has its label: the `subject` of its picture, with its box in pixels; the
  `spans` of characters in its text that tell the kind of color; the ids of the memes with the other picture
  (`sibling_picture`) and with the other text (`sibling_text`).
- `world.json`: the same facts for programs.
"""


def write_world(folder: Path, *, size: int, seed: int, progress: Progress | None) -> dict[str, int]:
    """Write annotations, pictures, regions and a vocabulary to an empty folder; same seed, same bytes.

    Returns:
        Number of memes in each annotation file.
    """
    world = Miniature(size, seed)
    counts = {}
    evidence: dict[int, dict[str, Any]] = {}
    for split, drawn in world.splits().items():
        memes = [
            Meme(id=str(meme.number), image=meme.image, text=meme.remark.text, label=int(meme.hateful))
            for meme in drawn
        ]
        # As in the challenge; the answers beside them let `diptych evaluate` score test splits all the same.
        hidden = split.startswith("test")
        write_memes(folder / f"{split}.jsonl", memes, labels=not hidden)
        if hidden:
            write_answers(folder / f"{split}.answers.jsonl", memes)
        counts[split] = len(memes)
        evidence |= {meme.number: _evidence(meme) for meme in drawn}
    # Once per meme: splits that share memes would repeat it.
    with atomic_file(folder / TRUTH, "w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(evidence[number])}\n" for number in sorted(evidence))
    # Both forms, so that the import of a TSV can be tried.
    world.write_pictures(folder, progress, tsv=True)
    vocabulary = world.write_vocabulary(folder / "vocabulary.txt")
    values = {"size": size, "seed": seed, "splits": counts, "vocabulary": vocabulary, "label": LABEL_MEANING}
    (folder / DESCRIPTION).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(README.format(**values), encoding="utf-8")
    return counts


def _evidence(meme: Drawn) -> dict[str, Any]:
    """Why a meme has its label, for tests of explanations; models never see it."""
    subject = meme.scene.subject
    picture, text = meme.siblings
    return {
        "id": str(meme.number),
        "subject": {"box": subject.box, "kind": subject.kind, "color": subject.color},
        "spans": meme.remark.spans,
        "sibling_picture": str(picture),
        "sibling_text": str(text),
    }
