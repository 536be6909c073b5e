"""Retrieval: all pairs equal one by one, resumed to the same bytes, and what is refused."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diptych.bundle import Bundle, save_bundle
from diptych.data import Processor, Sources
from diptych.datasets import Flickr30k, fabricate, named_data
from diptych.errors import ConfigError, DiptychError, FormatError, MissingFeatures
from diptych.features import FeatureStore
from diptych.metrics import grid_ranks
from diptych.predict import CosineScorer, Measuring, PairScorer, Predictor, retrieve, sides_of
from diptych.predict.partial import blocks_of
from diptych.predictions import Predictions
from diptych.recipe.call import call
from diptych.text import WordPiece
from diptych.types import Example, Pair

FAMILIES = ("lxmert_tiny", "vilbert_tiny", "ernievil_tiny", "vlbert_tiny", "oscar_tiny")


class Listed:
    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = [*examples]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def write(self, predictions: Predictions, path: Path) -> None:
        predictions.save(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("retrieval") / "world"
    fabricate(root, "flickr30k", size=40, seed=1)
    return root


@pytest.fixture(scope="module")
def store(world: Path) -> FeatureStore:
    return FeatureStore(world / "features")


@pytest.fixture(scope="module")
def captions(world: Path) -> Listed:
    """Seven captions of four images; one image has three, another one."""
    every = [*Flickr30k(world, "test")]
    return Listed([every[row] for row in (0, 1, 2, 5, 6, 10, 16)])


@pytest.fixture(scope="module")
def sentences(captions: Listed) -> Listed:
    """Pairs of sentences, some with an image."""
    rows = [
        (one.id, one.pairs[0], captions[6 - row].pairs[0].text) for row, one in enumerate(captions.examples)
    ]
    return Listed(
        [
            Example(
                id=key,
                pairs=(Pair(image=pair.image if row % 2 else None, text=pair.text, text_b=text),),
                target=1,
            )
            for row, (key, pair, text) in enumerate(rows)
        ]
    )


def nodes(world: Path, store: FeatureStore, model: str, task: str = "Match") -> dict[str, Any]:
    text = {"_target_": "diptych.text.WordPiece", "vocabulary": str(world / "vocabulary.txt")}
    sizes = {
        "vocab_size": WordPiece(world / "vocabulary.txt").vocab_size,
        "feature_dim": store.meta.feature_dim,
    }
    more = {"labels": ["a", "b"]} if task == "Classify" else {}
    processor = {"_target_": "diptych.data.Processor", "text": text, "regions": True, "max_tokens": 40}
    return {
        "model": {"_target_": f"diptych.models.{model}", **sizes},
        "task": {"_target_": f"diptych.tasks.{task}", **more},
        "processor": processor | ({"tags": True} if model == "oscar_tiny" else {}),
    }


def built(given: dict[str, Any]) -> Bundle:
    torch.manual_seed(0)
    model = call(given["model"])
    task = call(given["task"], model=model)
    return Bundle(model=model.eval(), task=task.eval(), processor=call(given["processor"]))


@pytest.fixture(scope="module")
def run(world: Path, store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights; they rank as well as others for what is tested."""
    given = nodes(world, store, "vlbert_tiny")
    bundle, folder = built(given), tmp_path_factory.mktemp("run")
    save_bundle(
        folder / "bundle",
        model=bundle.model,
        task=bundle.task,
        nodes=given,
        features=store.meta,
        places={"root": world, "features": world / "features", "more_features": None},
        provenance={"data": dict(named_data("flickr30k").node)},
    )
    return folder


@pytest.mark.parametrize("kind", ["captions", "sentences"])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_pairs_equal_those_predicted_one_by_one(
    family: str, kind: str, world: Path, store: FeatureStore, request: pytest.FixtureRequest
) -> None:
    predictor = Predictor(built(nodes(world, store, family)), device="cpu")
    sides = sides_of(request.getfixturevalue(kind))
    scorer = PairScorer(predictor, sides, Sources(regions=store))
    found = np.full(sides.shape, np.nan)
    for rows, columns in blocks_of(scorer.lengths, sides.owners, size=9):
        found[np.ix_(rows, columns)] = scorer.block(rows, columns)
    cells = [*np.ndindex(sides.shape)]
    every = Listed([Example(id=f"{row}|{column}", pairs=(sides.pair(row, column),)) for row, column in cells])
    alone = predictor.predict_dataset(every, features=store).scores
    assert alone is not None
    np.testing.assert_allclose(1 / (1 + np.exp(-found.ravel())), alone[:, 0], atol=2e-6)


@pytest.mark.parametrize(
    ("family", "layers", "rows"), [("lxmert_tiny", "text_encoder", 3), ("vilbert_tiny", "text", 3)]
)
def test_a_text_is_encoded_once_for_all_images_of_a_block(
    family: str, layers: str, rows: int, world: Path, store: FeatureStore, captions: Listed
) -> None:
    predictor = Predictor(built(nodes(world, store, family)), device="cpu")
    scorer = PairScorer(predictor, sides_of(captions), Sources(regions=store))
    seen: list[int] = []
    getattr(predictor.model, layers).register_forward_hook(lambda _, given, result: seen.append(len(result)))
    assert scorer.block([0, 1], [0, 1, 2]).shape == (2, 3)
    assert seen == [rows]


def test_sides_of_captions_and_of_sentences(captions: Listed, sentences: Listed) -> None:
    sides = sides_of(captions)
    assert (sides.shape, sides.directions) == ((4, 7), ("image_to_text", "text_to_image"))
    assert sides.owners.tolist() == [0, 0, 0, 1, 1, 2, 3]
    assert sides.ids[1] == tuple(one.id for one in captions.examples)
    assert sides.pair(2, 0) == Pair(image=captions[5].pairs[0].image, text=captions[0].pairs[0].text)
    sides = sides_of(sentences)
    assert (sides.shape, sides.directions) == ((7, 7), ("source_to_target", "target_to_source"))
    first, second = sentences[0].pairs[0], sentences[1].pairs[0]
    assert sides.pair(0, 1) == Pair(image=None, text=first.text, text_b=second.text_b)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda one: Example(id="x1", pairs=one.pairs, target=0), "x1 has the target 0"),
        (lambda one: Example(id="x2", pairs=one.pairs * 2, target=1), "x2 has 2 pair"),
        (lambda one: Example(id="x3", pairs=(Pair(image=("a", "b"), text="t"),), target=1), "x3"),
        (lambda one: Example(id="x4", pairs=(Pair(image=None, text="t"),), target=1), "x4"),
        (lambda one: Example(id="x5", pairs=(Pair(image="a", text="t", text_b="u"),), target=1), "x5"),
    ],
)
def test_what_is_no_true_pair_is_named(
    captions: Listed, change: Callable[[Example], Example], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        sides_of(Listed([*captions.examples, change(captions[0])]))


def test_blocks_cover_every_cell_of_a_fold_once() -> None:
    lengths = np.array([3, 9, 5, 1, 4]), np.array([2, 8, 8, 1, 5, 6, 7])
    owners = np.array([0, 1, 1, 2, 3, 3, 4])
    for folds in (1, 2):
        counts = np.zeros((5, 7), int)
        for rows, columns in blocks_of(lengths, owners, size=4, folds=folds):
            assert len(rows) * len(columns) <= 4
            counts[np.ix_(rows, columns)] += 1
        expected = np.ones((5, 7), int)
        if folds == 2:
            expected[:2, 3:] = expected[2:, :3] = 0
        assert (counts == expected).all()


def test_measures_rankings_and_files(run: Path, tmp_path: Path) -> None:
    found = retrieve(run, "test", out=tmp_path / "out", measuring=Measuring(top=3, samples=20))
    scores, sides = np.array(found.scores), found.sides
    assert scores.shape == sides.shape == (5, 25)
    texts, images = found.rankings["image_to_text"], found.rankings["text_to_image"]
    assert texts.ids == sides.ids[0]
    assert texts.rankings is not None
    assert images.rankings is not None
    best = [sides.ids[1][place] for place in np.argsort(-scores[2], kind="stable")[:3]]
    assert [*texts.rankings[2]] == best
    assert images.rankings[7][0] == sides.ids[0][scores[:, 7].argmax()]
    ranks = grid_ranks(scores, sides.owners)
    assert found.ranks["text_to_image"] == tuple(ranks[1])
    recall = found.measures["text_to_image"]["recall@1"]
    assert recall.value == pytest.approx(np.mean(ranks[1] == 1))
    assert not (tmp_path / "out.partial").exists()
    again = retrieve(run, "test", out=tmp_path / "out", measuring=Measuring(top=3, samples=20))
    assert again.kept
    assert (again.measures, again.ranks) == (found.measures, found.ranks)
    assert again.rankings["image_to_text"].rankings == texts.rankings
    with pytest.raises(ConfigError, match="top"):
        retrieve(run, "test", out=tmp_path / "out", measuring=Measuring(top=4, samples=20))


class Killed(Exception):
    pass


def stopped(run: Path, out: Path, after: int) -> None:
    """A retrieval that ends after some pairs."""

    def progress(done: int, total: int) -> None:
        if done >= after:
            raise Killed

    with pytest.raises(Killed):
        retrieve(run, "test", out=out, batch_size=16, progress=progress)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_after_a_kill_the_same_call_ends_in_the_same_bytes(run: Path, tmp_path: Path) -> None:
    whole = retrieve(run, "test", out=tmp_path / "whole", batch_size=16)
    stopped(run, tmp_path / "cut", 40)
    stopped(run, tmp_path / "cut", 80)
    calls: list[tuple[int, int]] = []
    retrieve(run, "test", out=tmp_path / "cut", batch_size=16, progress=lambda *counts: calls.append(counts))
    assert calls[0][0] > 80  # what was scored before is not scored again
    assert calls[-1] == (125, 125)
    assert contents(tmp_path / "cut") == contents(whole.folder)


def test_nothing_is_left_where_nothing_was_scored(run: Path, tmp_path: Path) -> None:
    stopped(run, tmp_path / "out", 1)
    assert (tmp_path / "out.partial").is_dir()  # one block is done
    given = {"out": tmp_path / "new", "features": tmp_path / "nowhere"}
    with pytest.raises(DiptychError, match="nowhere"):
        retrieve(run, "test", **given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.partial"]


def _record(folder: Path, **changes: object) -> None:
    record = json.loads((folder / "progress.json").read_text())
    (folder / "progress.json").write_text(json.dumps(record | changes))


DAMAGES: dict[str, tuple[Callable[[Path], object], type[DiptychError], str]] = {
    "cut off": (lambda folder: (folder / "scores.f32").write_bytes(b"1234"), FormatError, "4 bytes"),
    "no scores": (lambda folder: (folder / "scores.f32").unlink(), FormatError, "0 bytes"),
    "too many blocks": (lambda folder: _record(folder, blocks=999), FormatError, "999"),
    "negative": (lambda folder: _record(folder, blocks=-1), FormatError, "-1"),
    "text": (lambda folder: _record(folder, blocks="all"), FormatError, "progress.json"),
    "garbage": (
        lambda folder: (folder / "progress.json").write_bytes(b"\xff{"),
        FormatError,
        "progress.json",
    ),
    "holes": (
        lambda folder: (folder / "scores.f32").write_bytes(np.full(125, np.nan, np.float32).tobytes()),
        FormatError,
        "block 0",
    ),
    "other inputs": (lambda folder: _record(folder, made_of={"bundle": "x"}), ConfigError, "bundle"),
    "a file of the user": (lambda folder: (folder / "notes.txt").write_text("mine"), ConfigError, "partial"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_partial_table_is_refused_and_kept(run: Path, tmp_path: Path, damage: str) -> None:
    spoil, error, named = DAMAGES[damage]
    stopped(run, tmp_path / "out", 40)
    spoil(tmp_path / "out.partial")
    before = contents(tmp_path / "out.partial")
    with pytest.raises(error, match=named):
        retrieve(run, "test", out=tmp_path / "out", batch_size=16)
    assert contents(tmp_path / "out.partial") == before
    if damage != "a file of the user":
        assert not retrieve(run, "test", out=tmp_path / "out", batch_size=16, overwrite=True).kept


def test_folds_rank_within_parts_of_the_images(run: Path, tmp_path: Path) -> None:
    found = retrieve(run, "test", out=tmp_path / "out", folds=5)
    assert np.isnan(found.scores).sum() == 100
    assert set(found.ranks["text_to_image"]) == {1}
    assert len(found.rankings["image_to_text"].rankings[0]) == 5  # no candidate of another fold
    with pytest.raises(ConfigError, match="folds is 6"):
        retrieve(run, "test", out=tmp_path / "other", folds=6)


def test_one_image_and_one_text(run: Path, world: Path, tmp_path: Path) -> None:
    root = tmp_path / "one"
    root.mkdir()
    record = json.loads((world / "dataset_flickr30k.json").read_text())
    [image] = [one for one in record["images"] if one["split"] == "test"][:1]
    image["sentences"] = image["sentences"][:1]
    (root / "dataset_flickr30k.json").write_text(json.dumps({"images": [image]}))
    found = retrieve(run, "test", root=root, out=tmp_path / "out")
    assert found.scores.shape == (1, 1)
    for values in found.measures.values():
        assert all(tuple(one) == (1, 1, 1) for one in values.values())


def test_an_unknown_split_and_missing_features(run: Path, world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.*test"):
        retrieve(run, "nowhere", out=tmp_path / "out")
    record = json.loads((world / "dataset_flickr30k.json").read_text())
    for image in record["images"]:
        image["filename"] = f"9{image['filename']}"
    (tmp_path / "dataset_flickr30k.json").write_text(json.dumps(record))
    with pytest.raises(MissingFeatures, match="5 image"):
        retrieve(run, "test", root=tmp_path, out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["dataset_flickr30k.json"]


@pytest.mark.parametrize(
    ("given", "named"),
    [({"batch_size": 0}, "batch_size"), ({"by": "guess"}, "guess")],
)
def test_settings_outside_of_their_range_are_named(run: Path, given: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        retrieve(run, "test", **given)
    with pytest.raises(ConfigError, match="top is 0"):
        Measuring(top=0)


def test_cosine_compares_both_sides_encoded_alone(
    world: Path, store: FeatureStore, sentences: Listed, captions: Listed
) -> None:
    predictor = Predictor(built(nodes(world, store, "vlbert_tiny", "Classify")), device="cpu")
    sources = Sources(regions=store)
    with pytest.raises(ConfigError, match="Classify"):
        PairScorer(predictor, sides_of(captions), sources)
    scorer = CosineScorer(predictor, sides_of(sentences), sources, batch_size=3)
    found = scorer.block(range(7), range(7))
    assert found.dtype == np.float32
    assert (np.abs(found) <= 1 + 1e-6).all()
    # The same sentence without image on both sides has the cosine 1.
    same = Listed([Example(id="a", pairs=(Pair(image=None, text="a dog", text_b="a dog"),), target=1)])
    assert CosineScorer(predictor, sides_of(same), sources).block([0], [0]) == pytest.approx(1, abs=1e-6)


def test_a_whole_retrieval_by_cosine_has_a_place_of_its_own(run: Path) -> None:
    found = retrieve(run, "val", by="cosine")
    assert found.folder == run / "retrieval" / "val_cosine"
    assert found.scores.max() <= 1 + 1e-6


def test_scores_that_are_no_numbers_stop_it(world: Path, store: FeatureStore, captions: Listed) -> None:
    predictor = Predictor(built(nodes(world, store, "vlbert_tiny")), device="cpu")
    with torch.no_grad():
        next(predictor.task.parameters()).fill_(float("nan"))
    scorer = PairScorer(predictor, sides_of(captions), Sources(regions=store))
    with pytest.raises(ConfigError, match=str(captions[0].pairs[0].image)):
        scorer.block([0], [0])


def test_a_processor_gives_another_text_to_a_row(world: Path, store: FeatureStore, captions: Listed) -> None:
    processor = Processor(text=WordPiece(world / "vocabulary.txt"), regions=True)
    one, other = captions[0].pairs[0], captions[5].pairs[0]
    row = processor(one, Sources(regions=store))
    changed = processor.with_text(row, Pair(image=one.image, text=other.text))
    assert changed.regions is row.regions
    assert changed.tokens == processor(other, Sources(regions=store)).tokens
