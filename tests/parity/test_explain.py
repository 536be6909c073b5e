"""Relevance and Shapley values equal those of the originals: Transformer-MM-Explainability and MM-SHAP."""

import os
from functools import partial

import numpy as np
import pytest
import torch
from tests.parity import test_lxmert, test_visualbert
from tests.parity.heads import HEADS, load_head

from diptych.data import Row, pad
from diptych.explain import (
    Player,
    exact_shapley,
    hide,
    raw_attention,
    relevance,
    rollout,
    sampled_shapley,
    text_share,
)
from diptych.nn import ClassifierHead, attention_places, capture_attention
from diptych.tasks import Answer, Classify
from diptych.types import Batch, Regions, Tokens

if "DIPTYCH_GOLDENS" in os.environ:  # the repository's selection has none of theirs

    def test_relevance_of_two_streams_equals_the_original(golden):
        golden = golden("explain-lxmert-vqa")
        model, heads, _ = test_lxmert.build(golden)
        inputs = test_lxmert.unpack(golden.inputs, leave_out=("index",))
        task = Answer(model, answers=numbers(golden, "num_answers"), head=partial(ClassifierHead, layers=2))
        load_head(task, heads, HEADS["lxmert"]["vqa"], where="golden")
        found = check(golden, model, task, inputs)
        golden.check("ours.R_t_i", found.cross)

    @pytest.mark.parametrize("name", ["explain-visualbert-vqa", "explain-visualbert-hm"])
    def test_relevance_of_one_stream_equals_the_original(golden, name):
        golden = golden(name)
        check(golden, *visualbert(golden), test_visualbert.unpack(golden.inputs))

    def test_shapley_values_equal_the_original(golden):
        golden = golden("explain-mmshap")
        table, orders = golden.inputs["values"].numpy(), golden.inputs["orders"].numpy()
        players, text = orders.shape[1], np.arange(orders.shape[1]) < golden.config["text_players"]
        value = partial(look_up, table)
        exact, sampled = exact_shapley(value, players), sampled_shapley(value, orders)
        for name, found in (("", exact), ("permutation.", sampled)):
            close(golden, f"{name}shapley", found.values, 1e-10)
            close(golden, f"{name}t_shap", text_share(found.values, text), 1e-10)
        assert exact.values[golden.config["dummy_player"]] == pytest.approx(0, abs=1e-12)
        ends = value(np.stack([text, ~text, text & False]))
        for name, end in zip(("text", "image"), ends, strict=False):
            close(golden, f"without_interaction.{name}", end - ends[2], 1e-10)

    @pytest.mark.parametrize(("masking", "hidden"), [("pad", 0), ("mask", 4)])
    def test_shapley_values_of_a_model_equal_the_original(golden, masking, hidden):
        model, task = visualbert(golden("explain-visualbert-hm"))
        golden = golden("explain-mmshap-visualbert")
        tokens, index = golden.config["text_players"], int(golden.inputs["index"])
        ids, features = golden.inputs["input_ids"], golden.inputs["image_feature_0"]
        row = Row(
            tokens=Tokens(
                ids=(*ids[0].tolist(),), segments=(0,) * ids.shape[1], offsets=((0, 0),) * ids.shape[1]
            ),
            regions=Regions(
                features=features[0].numpy(), boxes=np.zeros((features.shape[1], 4), np.float32), size=(1, 1)
            ),
            boxes=np.zeros((features.shape[1], 4), np.float32),
            image_index=np.zeros(features.shape[1], np.int64),
        )
        players = [Player(kind="word", name="", places=((0, 1 + at),)) for at in range(tokens)]
        players += [
            Player(kind="regions", name="", places=((0, at),)) for at in range(golden.config["image_players"])
        ]

        @torch.no_grad()
        def value(coalitions):
            rows = [
                hide([row], [players[at] for at in np.flatnonzero(~one)], mask_id=hidden)[0]
                for one in coalitions
            ]
            batch = Batch(ids=tuple(map(str, range(len(rows)))), inputs=pad(rows))
            return task(model, batch).logits.double().softmax(-1)[:, index].numpy()

        found = exact_shapley(value, len(players))
        everything = (np.arange(1 << len(players))[:, None] >> np.arange(len(players)) & 1).astype(bool)
        close(golden, f"{masking}.values", value(everything), 2e-6)
        close(golden, f"{masking}.shapley", found.values, 5e-6)
        share = text_share(found.values, np.arange(len(players)) < tokens)
        close(golden, f"{masking}.t_shap", share, 1e-3)


def look_up(table, coalitions):
    """The value of each coalition; bit i of its number in the table is player i."""
    return table[coalitions @ (1 << np.arange(coalitions.shape[1]))]


def close(golden, name, got, tolerance):
    expected, got = golden.outputs[name], torch.as_tensor(got, dtype=torch.float64)
    torch.testing.assert_close(got, expected.double(), atol=tolerance, rtol=0)
    golden.record(got, expected)


def numbers(golden, key):
    return [str(number) for number in range(golden.config[key])]


def visualbert(golden):
    """The model of the golden and its task."""
    vqa = golden.config["pooler_strategy"] == "vqa"
    model, heads, _ = test_visualbert.build(golden, readout="before_end" if vqa else "first")
    names, head = numbers(golden, "num_labels"), test_visualbert.NARROW
    task = Answer(model, answers=names, head=head) if vqa else Classify(model, labels=names, head=head)
    load_head(task, heads, HEADS["mmf"]["vqa" if vqa else "hateful_memes"], where="golden")
    return model, task.eval()


def check(golden, model, task, inputs):
    """Compare relevance, raw attention and rollout with the golden, from its padded batch."""
    index = golden.inputs["index"]
    batch = Batch(ids=tuple(map(str, range(len(index)))), inputs=inputs)

    def explained(encoding):
        logits = task.eval().score(encoding, batch)
        golden.check("logits", logits)
        return logits.gather(1, index[:, None]).squeeze(1)

    found = relevance(model, inputs, explained)
    compare(golden, "ours", found)
    with torch.no_grad(), capture_attention(model) as maps:
        model(inputs, reads=frozenset({"pooled"}))
    means, plan = {name: one.mean(1) for name, one in maps.items()}, attention_places(model)
    compare(golden, "raw_attention", raw_attention(means, inputs, plan))
    compare(golden, "rollout", rollout(means, inputs, plan))
    return found


def compare(golden, method, found):
    golden.check(f"{method}.text", found.text)
    golden.check(f"{method}.image", found.regions)
