import json
from collections import defaultdict
from dataclasses import replace
from hashlib import sha256
from itertools import product

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from diptych.check import check
from diptych.datasets import HatefulMemes, fabricate
from diptych.datasets.miniature import make_quadruples, split_quadruples
from diptych.errors import ConfigError
from diptych.features import FeatureStore, read_features
from diptych.files import MARK
from diptych.text import WordPiece
from diptych.world import detect, draw_scene
from diptych.world.language import CUES, FEELS
from diptych.world.render import CLASSES
from diptych.world.scene import COLORS, COOL, WARM

SPLITS = ("train", "dev_seen", "dev_unseen", "test_seen", "test_unseen")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("worlds") / "world", size=120, seed=3)


def split(world, name):
    answers = world.root / f"{name}.answers.jsonl"
    return HatefulMemes(world.root, name, answers=answers if answers.exists() else None)


def digests(root):
    return {str(f.relative_to(root)): sha256(f.read_bytes()).digest() for f in root.rglob("*") if f.is_file()}


def test_same_seed_same_bytes_and_another_seed_another_world(world, tmp_path):
    again, other = (fabricate(tmp_path / str(seed), size=120, seed=seed).root for seed in (3, 4))
    assert digests(world.root) == digests(again)
    theirs = digests(other)
    same = [name for name, digest in digests(again).items() if theirs[name] == digest]
    assert same == [MARK]  # which lists the files by name


def test_sizes_follow_the_challenge():
    sizes = {name: rows.stop - rows.start for name, rows in split_quadruples(3035).items()}
    assert sizes == {"train": 2125, "dev_seen": 125, "dev_unseen": 135, "test_seen": 250, "test_unseen": 500}
    small = {name: 4 * (rows.stop - rows.start) for name, rows in split_quadruples(500).items()}
    assert small == {"train": 1312, "dev_seen": 152, "dev_unseen": 164, "test_seen": 164, "test_unseen": 328}


@pytest.mark.parametrize("count", [10, 11, 25, 100, 999, 50_000])
def test_splits_cover_everything_once_but_for_the_known_overlap(count):
    rows = {name: range(part.start, part.stop) for name, part in split_quadruples(count).items()}
    assert all(rows.values())
    shared = set(rows["dev_seen"]) & set(rows["dev_unseen"])
    assert 0 < len(shared) <= len(rows["dev_seen"])
    assert sorted(number for part in rows.values() for number in part) == sorted([*range(count), *shared])


def test_files_are_complete(world):
    assert world.splits == {name: len(split(world, name)) for name in SPLITS}
    shared = set(split(world, "dev_seen").ids) & set(split(world, "dev_unseen").ids)
    assert sum(world.splits.values()) - len(shared) == 120
    assert len(list((world.root / "img").iterdir())) == 120
    report = check(world.root, features=FeatureStore(world.root / "features"))
    assert report.ok
    assert {finding.severity for finding in report.findings} == {"note"}
    facts = json.loads((world.root / "world.json").read_text())
    assert (facts["size"], facts["seed"], facts["splits"]) == (120, 3, world.splits)
    assert "largest thing" in facts["label"]


def test_test_labels_are_kept_apart(world):
    for name in ("test_seen", "test_unseen"):
        lines = [json.loads(line) for line in (world.root / f"{name}.jsonl").read_text().splitlines()]
        assert all(set(line) == {"id", "img", "text"} for line in lines)
        answers = [
            json.loads(line) for line in (world.root / f"{name}.answers.jsonl").read_text().splitlines()
        ]
        assert [line["id"] for line in answers] == [line["id"] for line in lines]
        assert {line["label"] for line in answers} == {0, 1}
    first = json.loads((world.root / "train.jsonl").read_text().splitlines()[0])
    assert list(first) == ["id", "img", "label", "text"]
    assert first["img"] == f"img/{first['id']:05d}.png"


def test_store_and_tsv_hold_the_same_regions(world):
    store = FeatureStore(world.root / "features")
    table = dict(read_features(world.root / "features.tsv"))
    assert set(table) == set(store.keys())
    assert (store.meta.classes, store.meta.attributes) == (CLASSES, COLORS)
    for key, regions in table.items():
        stored = store[key]
        assert np.array_equal(regions.features, stored.features.astype(np.float32))
        assert np.array_equal(regions.boxes, stored.boxes)
        with Image.open(world.root / "img" / f"{key}.png") as picture:
            assert picture.size == regions.size == stored.size


def test_vocabulary_knows_the_language(world):
    tokenizer = WordPiece(world.root / "vocabulary.txt", lowercase=True)
    unknown = (world.root / "vocabulary.txt").read_text().splitlines().index("[UNK]")
    train = [example.pairs[0].text for example in split(world, "train")]
    test = [example.pairs[0].text for example in split(world, "test_unseen")]
    pieces = {text: tokenizer.encode(text, max_tokens=128).ids for text in (*train, *test)}
    assert sum(len(pieces[text]) - 2 for text in train) < 1.1 * sum(len(text.split()) for text in train)
    assert not any(unknown in ids for ids in pieces.values())


def test_memes_come_in_fours_that_stay_together(world):
    for name in SPLITS:
        by_text = defaultdict(list)
        for example in split(world, name):
            by_text[example.pairs[0].text].append(example.target)
        assert all(sorted(targets) == ["benign", "hateful"] for targets in by_text.values())
    texts = {name: {e.pairs[0].text for e in split(world, name)} for name in SPLITS if name != "dev_unseen"}
    assert sum(map(len, texts.values())) == len(set().union(*texts.values()))


def memes(count, seed):
    """Text, scene, regions and label of the memes of `count` quadruples."""
    for number, four in enumerate(make_quadruples(count, seed)):
        for place, (scene, remark) in enumerate(product(four.scenes, four.remarks)):
            regions = detect(scene, np.random.default_rng([seed, number, place]))
            yield remark.text, scene, regions, int(remark.hits(scene))


@pytest.fixture(scope="module")
def evidence():
    """Bags of words, pooled regions, true attributes, and labels; the last third is held out."""
    texts, scenes, regions, labels = zip(*memes(300, seed=1), strict=True)
    bags = CountVectorizer(min_df=2).fit_transform(texts).toarray().astype(float)
    pooled = np.stack([one.features.astype(float).mean(0) for one in regions])
    truth = np.array(
        [
            [
                COLORS.index(s.subject.color),
                CLASSES.index(s.subject.kind),
                len(s.things),
                s.backdrop,
                *s.subject.box,
            ]
            for s in scenes
        ]
    )
    return bags, pooled, truth, np.array(labels)


def held_out_auroc(features, labels, model):
    count = len(labels) * 2 // 3
    model.fit(features[:count], labels[:count])
    return roc_auc_score(labels[count:], model.predict_proba(features[count:])[:, 1])


CHANCE = pytest.approx(0.5, abs=3 * 0.029)  # three standard errors of an AUROC over 400 balanced memes


@pytest.mark.parametrize(
    "model",
    [LogisticRegression(max_iter=500), HistGradientBoostingClassifier(max_iter=60, random_state=0)],
    ids=["linear", "boosting"],
)
def test_one_modality_alone_is_at_chance(evidence, model):
    bags, pooled, truth, labels = evidence
    for features in (bags, pooled, truth):
        assert held_out_auroc(features, labels, model) == CHANCE


def test_pixels_alone_are_at_chance():
    pictures, labels = [], []
    for four in make_quadruples(100, seed=2):
        for scene, remark in product(four.scenes, four.remarks):
            pictures.append(np.asarray(draw_scene(scene).resize((8, 8))).reshape(-1) / 255)
            labels.append(int(remark.hits(scene)))
    assert held_out_auroc(
        np.array(pictures), np.array(labels), LogisticRegression(max_iter=500)
    ) == pytest.approx(0.5, abs=3 * 0.05)


def test_both_together_decide(evidence):
    """A linear model on products of a few text components and a few region components."""
    bags, pooled, _, labels = evidence
    text, image = (PCA(8, random_state=0).fit_transform(features) for features in (bags, pooled))
    joint = (text[:, :, None] * image[:, None, :]).reshape(len(labels), -1)
    assert held_out_auroc(joint, labels, LogisticRegression(max_iter=2000)) > 0.95


def test_props_never_decide():
    for four in make_quadruples(50, seed=6):
        for scene, remark in product(four.scenes, four.remarks):
            bare = replace(scene, things=(scene.subject,))
            assert remark.hits(bare) == remark.hits(scene)


@pytest.mark.parametrize("size", [0, 36, 41, 2001, 200_004])
def test_impossible_size_is_one_clear_error(tmp_path, size):
    with pytest.raises(ConfigError, match=rf"size .* {size} "):
        fabricate(tmp_path / "world", size=size)
    assert list(tmp_path.iterdir()) == []


def test_negative_seed_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"seed .* -1; "):
        fabricate(tmp_path / "world", size=40, seed=-1)


def test_nothing_is_overwritten_unasked(world, tmp_path):
    before = digests(world.root)
    with pytest.raises(ConfigError, match=r"world .*overwrite=true"):
        fabricate(world.root, size=40)
    assert digests(world.root) == before
    precious = tmp_path / "thesis.tex"
    precious.write_text("years of work")
    with pytest.raises(ConfigError, match=r" a world .*\.diptych"):
        fabricate(tmp_path, size=40, overwrite=True)
    assert precious.read_text() == "years of work"
    with pytest.raises(ConfigError, match=r"thesis\.tex "):
        fabricate(precious, size=40, overwrite=True)


def test_a_world_is_replaced_on_request(tmp_path):
    fabricate(tmp_path / "world", size=44)
    report = fabricate(tmp_path / "world", size=40, overwrite=True)
    assert len(list((report.root / "img").iterdir())) == 40


def test_interruption_leaves_nothing(tmp_path):
    def stop(done, size):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fabricate(tmp_path / "world", size=40, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_reaches_the_end(tmp_path):
    steps = []
    fabricate(tmp_path / "world", size=40, progress=lambda done, size: steps.append((done, size)))
    assert steps == [(done, 40) for done in range(4, 41, 4)]


def test_the_truth_says_why_each_meme_has_its_label(world):
    memes = {}
    for name in SPLITS:
        memes |= {example.id: example for example in split(world, name)}
    lines = (world.root / "truth.jsonl").read_text().splitlines()
    truth = {one["id"]: one for one in map(json.loads, lines)}
    assert truth.keys() == memes.keys()
    for number, one in truth.items():
        text = memes[number].pairs[0].text
        words = [text[start:stop] for start, stop in one["spans"]]
        warm = words[1] in WARM
        assert words[1] in (WARM if warm else COOL)
        assert set(words) <= {*FEELS["warm" if warm else "cool"], *(WARM if warm else COOL)} | {
            *CUES["warm" if warm else "cool"]
        }
        # Siblings share the text or the picture, and point back.
        picture, other = truth[one["sibling_picture"]], truth[one["sibling_text"]]
        assert memes[picture["id"]].pairs[0].text == text
        assert other["subject"] == one["subject"]
        assert (picture["sibling_picture"], other["sibling_text"]) == (number, number)
        assert (picture["subject"]["color"] in WARM) != (one["subject"]["color"] in WARM)
