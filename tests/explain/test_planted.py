"""On the miniature world, whose rule is known, explanations find the evidence that decides."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from diptych.cli import main
from diptych.data import Sources
from diptych.datasets import HatefulMemes, fabricate
from diptych.explain import Budget, Variants, evidence_of, overlap
from diptych.features import FeatureStore
from diptych.predict import Predictor, load

pytestmark = pytest.mark.journey
MEMES = 24  # of the test split; the measures are shares of these


@dataclass
class World:
    predictor: Predictor
    truth: dict
    memes: dict
    store: FeatureStore

    def variants(self, number):
        return Variants(self.predictor, self.memes[number], Sources(regions=self.store), Budget())

    def deciding(self, number):
        """Which regions of a meme show the subject of its picture."""
        regions = self.store[f"{int(number):05d}"]
        scale = np.array(regions.size * 2)
        return overlap(np.array(self.truth[number]["subject"]["box"]) / scale, regions.boxes / scale) >= 0.5


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    fabricate(folder / "memes", size=2000, seed=0)
    words = [f"root={folder / 'memes'}", f"out={folder / 'run'}", "progress=false", "loggers=[]"]
    assert main(["train", "experiment=hateful_memes/uniter_tiny", *words]) == 0
    lines = (folder / "memes" / "truth.jsonl").read_text().splitlines()
    split = HatefulMemes(folder / "memes", "test_unseen")
    return World(
        predictor=load(folder / "run", device="cpu"),
        truth={one["id"]: one for one in map(json.loads, lines)},
        memes={split[at].id: split[at] for at in range(len(split))},
        store=FeatureStore(folder / "memes" / "features"),
    )


@pytest.mark.timeout(600)
def test_other_evidence_changes_the_answer_and_other_scenery_does_not(world):
    flips = []
    for number in [*world.memes][:MEMES]:
        one = world.variants(number)
        sibling = world.truth[number]["sibling_picture"]
        own, other = (world.store[f"{int(key):05d}"] for key in (number, sibling))
        rows = []
        for subject in (True, False):
            features = own.features.copy()
            places, found = (np.flatnonzero(world.deciding(key) == subject) for key in (number, sibling))
            if len(found):
                features[places] = other.features[np.resize(found, len(places))]
            row = one.rows[0]
            rows.append([replace(row, regions=replace(row.regions, features=features))])
        pairs = world.memes[number].pairs
        for changed in (
            replace(pairs[0], image=world.memes[sibling].pairs[0].image),
            replace(pairs[0], text=world.memes[world.truth[number]["sibling_text"]].pairs[0].text),
        ):
            example = replace(world.memes[number], pairs=(changed,))
            rows.append(world.predictor.processor.rows(example, Sources(regions=world.store)))
        flips.append(one.outcomes(rows)[1])
    subject, scenery, picture, text = np.mean(flips, 0)
    assert min(subject, picture, text) >= 0.95
    assert scenery <= 0.06


@pytest.mark.timeout(600)
def test_shapley_values_find_the_words_and_regions_that_decide(world):
    hits = []
    for number in [*world.memes][:MEMES]:
        one = world.variants(number)
        regions, spans = world.deciding(number), world.truth[number]["spans"]
        decides = np.array(
            [
                any(first < stop and last > start for _, start, stop in player.spans for first, last in spans)
                if player.of_text
                else any(regions[at] for _, at in player.places)
                for player in one.players
            ]
        )
        # A decision that is the model's default needs no evidence, so "why" has no answer.
        if not one.outcomes([one.without(np.flatnonzero(decides).tolist())])[1][0]:
            continue
        why = evidence_of(one)
        values = why.contributions.values
        hits.append([decides[max(why.ranked(text=side), key=values.__getitem__)] for side in (True, False)])
    words, areas = np.mean(hits, 0)
    assert len(hits) >= MEMES / 4
    assert words >= 0.8
    assert areas >= 0.7
