"""An explanation by a model of base size, beside asking it for one variant of the meme after the other."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
import torch
from bench._timing import in_turns, promise
from bench.retrieval import speed
from numpy import ndarray
from torch.utils.flop_counter import FlopCounterMode

from diptych.bundle import Bundle
from diptych.data import Processor, Sources
from diptych.explain import Budget, Evidence, Variants, explain
from diptych.models import uniter_base
from diptych.predict import GivenRegions, Predictor
from diptych.tasks import Classify
from diptych.text import WordPiece, learn_vocabulary, write_vocabulary
from diptych.types import Example, FeatureMeta, Pair, Regions

WORDS, REGIONS, WIDTH = 17, 36, 2048  # as of Hateful Memes: its mean text, and a detector's usual number
TRIED = 24  # variants that are asked for one by one
LIMIT = 20.0  # seconds, which some processors allow and others do not
ABOVE = 2.0  # times the floor, of which a neighbor on the same processor can take its part

Row = tuple[str, str, str, str, str]


def rows() -> Iterator[Row]:
    """What was measured, ours, the other way, how many times faster ours is, and the promise."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="diptych-bench-") as folder:
        predictor, example, sources = meme(Path(folder))
        found: list[Evidence] = []
        counter = FlopCounterMode(display=False)

        def ours() -> None:
            with counter:
                found.append(explain(predictor, example, sources))

        fast, some = in_turns(
            ours,
            partial(one_by_one, Variants(predictor, example, sources, Budget())),
            seconds=0,
            least=1,
            warm=False,  # a call takes many seconds, so the first one costs nothing
            clock=process_time,
        )
    # Processor time of all threads by their number: other work on the machine does not count.
    cores = torch.get_num_threads()
    asked, work = found[0].contributions.evaluations, counter.get_total_flops()
    rate = cores * speed(2048)
    fast, slow, floor = fast / cores, some / cores / TRIED * asked, work / rate
    yield (
        f"UNITER-base, {len(found[0].players)} words and areas, 10 permutations, {asked} variants: "
        f"{work / 1e12:.1f} TFLOP, which {LIMIT:g} s allow at {work / LIMIT / 1e9:.0f} GFLOP/s",
        f"{fast:.1f} s on {cores} cores",
        f"at {rate / 1e9:.0f} GFLOP/s, a matrix product's rate here: {floor:.1f} s",
        f"{floor / fast:.2f}x",
        promise(f"<= {ABOVE:g}x its floor", fast <= ABOVE * floor),
    )
    yield (
        "the same",
        f"{fast:.1f} s",
        f"each variant by itself (of {TRIED}) {slow:.1f} s",
        f"{slow / fast:.2f}x",
    )


def meme(folder: Path) -> tuple[Predictor, Example, Sources]:
    """A model without training, and a meme whose regions lie apart, so that few form one area."""
    generator = np.random.default_rng(0)
    text = " ".join(generator.choice(list("abcdefghij"), WORDS))
    write_vocabulary(folder / "vocabulary.txt", learn_vocabulary([text], 100))
    tokenizer = WordPiece(folder / "vocabulary.txt")
    corners = np.sort(generator.random((REGIONS, 2, 2), np.float32), 1).reshape(-1, 4) * 600
    regions = Regions(features=generator.random((REGIONS, WIDTH), np.float32), boxes=corners, size=(600, 600))
    model = uniter_base(vocab_size=tokenizer.vocab_size, feature_dim=WIDTH).eval()
    task = Classify(model, labels=("benign", "hateful")).eval()
    about = FeatureMeta(feature_dim=WIDTH)
    bundle = Bundle(model=model, task=task, processor=Processor(text=tokenizer, regions=True), features=about)
    source = GivenRegions({"a": regions}, detector=about)
    example = Example(id="a", pairs=(Pair(image="a", text=text),))
    return Predictor(bundle, device="cpu"), example, Sources(regions=source)


def one_by_one(variants: Variants) -> list[ndarray]:
    """The values of some coalitions, a batch for each."""
    generator = np.random.default_rng(0)
    coalitions = generator.random((TRIED, 1, len(variants.players))) < 0.5
    return [variants.shown(one) for one in coalitions]
