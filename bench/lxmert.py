"""LXMERT on real question lengths: against transformers at 20 tokens, and with one region pass per image."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from bench._peers import lxmert
from bench._timing import in_turns, promise
from bench.models import autocast, compared, name, regions, stepper

from diptych.bundle import Bundle
from diptych.data import Processor
from diptych.datasets import Table
from diptych.features import FeatureStore, write_store
from diptych.models import lxmert_base
from diptych.predict import Predictor
from diptych.tasks import Answer
from diptych.text import WordPiece, learn_vocabulary, write_vocabulary
from diptych.types import FeatureMeta, Inputs, PaddedText, Regions

Row = tuple[str, ...]
REGIONS, WIDTH, FIXED = 36, 2048, 20
# Tokens of questions of VQA v2, special tokens and question mark included: 6 words on average. The loader
# puts questions of similar length into a batch.
LENGTHS = (6, 7, 8, 8, 9, 9, 10, 12)
BATCHES = ((6, 6, 7, 7, 8, 8, 8, 8), (9, 9, 9, 9, 10, 10, 12, 12))
IMAGES, ASKED = 12, 5  # the test split of VQA has 5.5 questions per image
QUESTIONS = 447_793  # of that split


def rows() -> Iterator[Row]:
    """What was measured, ours, the other way, and how many times faster ours is."""
    torch.manual_seed(0)
    try:
        import transformers  # noqa: F401
    except ImportError:
        yield "LXMERT", "", "transformers is not installed", ""
    else:
        for dtype in (torch.float32, torch.bfloat16):
            yield from against_transformers(dtype)
    with tempfile.TemporaryDirectory(prefix="diptych-bench-") as folder:
        questions = asked(Path(folder))
        for precision in ("32", "bf16"):
            yield sharing(Path(folder), questions, precision)


def against_transformers(dtype: torch.dtype) -> Iterator[Row]:
    """At the published depth: ours padded to the longest question, theirs to the original's 20 tokens."""
    batches = [inputs(some, max(some)) for some in BATCHES]
    pair = lxmert(*batches, depth=(9, 5, 5), padded=[inputs(some, FIXED) for some in BATCHES])
    count = sum(map(len, BATCHES))
    what = f"LXMERT-base, {count} questions of 6 words in {len(BATCHES)} batches, {{}}, {name(dtype)}"
    aim = 1.3 if dtype == torch.float32 else 1.8
    other = f"transformers at {FIXED} tokens"
    pair.model.eval(), pair.peer.eval()
    with torch.inference_mode(), autocast(dtype):
        near = {"atol": 5e-5, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.1}
        torch.testing.assert_close(pair.ours(), pair.theirs(), **near, check_dtype=False)
        yield compared(what.format("forward"), pair.ours, other, pair.theirs, count=count, least=aim)
    steps = stepper(pair.model, pair.ours, dtype), stepper(pair.peer, pair.theirs, dtype)
    yield compared(what.format("training step"), steps[0], other, steps[1], count=count, least=aim)


def inputs(lengths: Sequence[int], width: int) -> Inputs:
    """The same questions, padded to `width`."""
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = torch.randint(1, 1000, (len(lengths), FIXED), generator=torch.Generator().manual_seed(0))
    ids = ids[:, :width] * mask
    text = PaddedText(ids=ids, mask=mask, segments=torch.zeros_like(ids))
    return Inputs(text=text, regions=regions(len(lengths)))


def asked(folder: Path) -> Table:
    """Questions about images, with a store of their regions."""
    random = np.random.default_rng(0)
    boxes = np.tile(np.array([0, 0, 50, 50], np.float32), (REGIONS, 1))
    images = (
        (str(key), Regions(features=random.random((REGIONS, WIDTH), np.float32), boxes=boxes, size=(99, 99)))
        for key in range(IMAGES)
    )
    write_store(folder / "features", images, FeatureMeta(feature_dim=WIDTH))
    texts = [
        " ".join(random.choice(list("abcdefghij"), random.choice(LENGTHS) - 2)) for _ in range(IMAGES * ASKED)
    ]
    write_vocabulary(folder / "vocabulary.txt", learn_vocabulary(texts, 100))
    lines = [f"{row},{row % IMAGES},{text}" for row, text in enumerate(texts)]
    (folder / "test.csv").write_text("\n".join(["id,image,text", *lines]), encoding="utf-8")
    return Table(folder, "test", columns={"id": "id", "image": "image", "text": "text"})


def sharing(folder: Path, questions: Table, precision: str) -> Row:
    """All questions with one region pass per image, or one per question; answers must agree."""
    tokenizer, store = WordPiece(folder / "vocabulary.txt"), FeatureStore(folder / "features")
    model = lxmert_base(vocab_size=tokenizer.vocab_size)
    task = Answer(model, answers=[str(number) for number in range(3129)], keep_scores=True)
    processor = Processor(text=tokenizer, regions=True)
    bundle = Bundle(model=model.eval(), task=task.eval(), processor=processor)
    predictor = Predictor(bundle, device="cpu", precision=precision)

    def predict(share: bool) -> np.ndarray | None:
        model.shares_regions = share
        return predictor.predict_dataset(questions, features=store, batch_size=32).scores

    near = {"atol": 1e-5} if precision == "32" else {"atol": 0.05}
    np.testing.assert_allclose(predict(True), predict(False), **near)
    fast, slow = in_turns(
        lambda: predict(True), lambda: predict(False), least=1, warm=False, clock=time.process_time
    )
    count = len(questions)
    return (
        f"LXMERT-base, VQA: {ASKED} questions per image, {precision} bit; the test split at this rate: "
        f"{fast / count * QUESTIONS / 3600:.1f} hours",
        f"{1000 * fast / count:.1f} s per 1,000",
        f"regions encoded per question: {1000 * slow / count:.1f} s",
        f"{slow / fast:.2f}x",
        promise(">= 1.1x", slow / fast >= 1.1),
    )
