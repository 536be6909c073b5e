"""VL-BERT and MM-BERT equal jackroos/VL-BERT and phaedonmit/VL-BERT: states, scores, losses, gradients."""

import os
from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.parity.heads import HEADS, load_head
from torch import nn
from torch.nn import functional as F

from diptych.convert import fill_model
from diptych.convert.rules import Keep, load_into, masked_words, rename, restore
from diptych.convert.vlbert import VLBERT, VLBERT_PRETRAIN
from diptych.models import VlBert
from diptych.models.vlbert import box_waves
from diptych.nn import ClassifierHead, capture_attention
from diptych.tasks import Answer, Choose, Classify, Ground, Pretrain, Search, TranslateMasked
from diptych.tasks.objectives import MaskedRegions, MaskedText, Matching, RegionProbabilities, Sample
from diptych.types import Batch, Inputs, PaddedRegions, PaddedText, Tokens

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection
SEEN = tuple(Keep(name, "not in the encoder alone") for name in ("regions", "region_word"))


def sized(golden, **options):
    """An empty model of the sizes of a golden."""
    config = golden.config.get("VLBERT", golden.config)
    waves = 8 * golden.config.get("coord_dim_per_sin_or_cos", 1)
    return VlBert(
        vocab_size=config["vocab_size"],
        feature_dim=golden.config.get("feature_dim", 1),
        box_dim=waves,
        dim=config["hidden_size"],
        visual_dim=config["visual_size"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        max_positions=config["max_position_embeddings"],
        first_position=config["position_padding_idx"] + 1,
        visual_norm=config["visual_ln"],
        whole_image=False,  # the inputs of the originals hold it
        **options,
    ).eval()


def build(golden, **options):
    """The model with the weights of the golden, and those of its heads."""
    config = golden.config["VLBERT"]
    readout = "first" if config["with_pooler"] else "before_end"
    learned = "aux_text_visual_embedding.weight" in golden.weights
    model = sized(golden, **{"readout": readout, "learned_blank": learned, **options})
    return model, fill_model(model, golden.weights, where=golden.name)


def text_of(ids, mask=None, segments=None, mentions=None):
    return PaddedText(
        ids=ids,
        mask=ids > 0 if mask is None else mask.bool(),
        segments=torch.zeros_like(ids) if segments is None else segments,
        mentions=mentions,
    )


def regions_of(inputs, repeat=1):
    """Boxes in pixels, features behind them; -2 is padding."""
    boxes, features = inputs["boxes"][..., :4], inputs["boxes"][..., 4:]
    sizes = inputs["im_info"][:, :2]
    regions = PaddedRegions(
        features=features,
        boxes=boxes / sizes.repeat(1, 2)[:, None],
        mask=boxes[..., 0] > -1.5,
        image_index=torch.zeros(boxes.shape[:2], dtype=torch.int64),
        sizes=sizes,
    )
    return regions.map(lambda one: one.repeat_interleave(repeat, 0))


def gradients(golden, model, task=None):
    """Gradients of the model, and of the heads of pre-training, under the names of the original."""
    anchor = "word_embeddings.weight"
    prefix = next(name for name in golden.weights if name.endswith(anchor)).removesuffix(anchor)
    found = restore(_gradients(model), VLBERT)
    ours = {
        prefix + name.removeprefix("vlbert.") if name.startswith("vlbert.") else name: one
        for name, one in found.items()
    }
    return ours if task is None else ours | restore(_gradients(task), VLBERT_PRETRAIN)


def _gradients(part):
    return {name: one.grad for name, one in part.named_parameters() if one.grad is not None}


def asking(golden, model, heads, *names, by="all"):
    """The task with these objectives, as far as the golden has their heads."""
    config = golden.config["VLBERT"]
    classes = partial(
        RegionProbabilities, classes=config["visual_region_classes"], loss="cross_entropy", by=by
    )
    known = {
        "words": partial(MaskedText, by=by),
        "regions": partial(MaskedRegions, predict={"classes": classes}, norm=False),
        "matching": partial(Matching, classes=len(heads.get(f"{ANCHORS['matching']}bias", "ab"))),
    }
    task = Pretrain(model, objectives={name: known[name] for name in names})
    own = {key: one for key, one in heads.items() if key.startswith(tuple(ANCHORS[name] for name in names))}
    load_into(task, own, VLBERT_PRETRAIN, where=golden.name)
    return task


ANCHORS = {
    "words": "vlbert.mlm_head.",
    "regions": "vlbert.mvrc_head.",
    "matching": "vlbert.relationsip_head.caption_image_relationship.",
}


def word_scores(task, model, states):
    return task.objectives["words"].head(states, model.word_embedding().weight)


def padded(batches, value):
    """Several corpora below each other."""
    longest = max(one.shape[1] for one in batches)
    return torch.cat([F.pad(one, (0, longest - one.shape[1]), value=value) for one in batches])


class Numbers:
    """The vocabulary of a golden: the word of id i is w<i>, but ##w<i> where 5 divides it."""

    def __init__(self, golden):
        self.special = golden.config["special_ids"]
        self.pad_id, self.mask_id = self.special["PAD"], self.special["MASK"]
        self.special_ids = (self.pad_id, self.special["CLS"], self.special["SEP"], self.mask_id)
        count = golden.config["VLBERT"]["vocab_size"]
        self.tokens = tuple(f"{'' if number % 5 else '##'}w{number}" for number in range(count))
        self.vocab_size, self.fingerprint = count, golden.name

    def encode(self, text, text_b=None, *, max_tokens):
        return Tokens(ids=(self.special["CLS"], self.special["SEP"]), segments=(0, 0), offsets=((0, 0),) * 2)


def translator(golden, model, heads, length):
    """The task with the golden's head, and the scores that it gives from now on."""
    words, stop = Numbers(golden), golden.config["special_ids"]["STOP"]
    task = TranslateMasked(
        model, text=words, stop=words.tokens[stop], max_length=length, special=True, detokenize=False
    ).eval()
    own = {key: one for key, one in heads.items() if key.startswith(ANCHORS["words"])}
    load_into(task, own, masked_words("vlbert.mlm_head.predictions", "head"), where=golden.name)
    scores, below = [], task._next
    task._next = lambda *given: scores.append(below(*given)) or scores[-1].clone()
    return task, scores


TRANSFORM = partial(ClassifierHead, layers=2, width=1)
PLAIN = partial(TRANSFORM, norm=False)


def test_pretraining_equals_the_original(golden):
    golden = golden("vlbert-pretraining-multitask")
    model, heads = build(golden)
    given = golden.inputs
    truth, text = regions_of(given), text_of(given["text"])
    truth = replace(truth, probabilities=given["mvrc_labels"])
    regions = replace(truth, hidden=given["mvrc_ops"] == 1)
    captions = Sample(
        inputs=Inputs(text=text, regions=regions),
        regions=truth,
        words=given["mlm_labels"],
        selected=truth.mask,  # a region whose label is no distribution is not asked for
        mismatch=1 - given["relationship_label"],
    )
    corpora = [len(given[name]) for name in sorted(given) if name.startswith("aux_text_")]
    ids = padded([given[f"aux_text_{number}"] for number in range(len(corpora))], 0)
    words = padded([given[f"aux_mlm_labels_{number}"] for number in range(len(corpora))], -1)
    others = Sample(inputs=Inputs(text=text_of(ids)), words=words)

    names = {"matching": "relationship_loss", "words": "mlm_loss_wvc", "regions": "mvrc_loss"}
    for by, ending in (("rows", "_batch_first"), ("all", "")):
        task = asking(golden, model, heads, "words", "regions", "matching", by=by)
        losses = task.losses(model, captions, list(names))
        alone = task.losses(model, others, ["words"])
        for name, theirs in names.items():
            golden.check(theirs + (ending if name != "matching" else ""), losses[name])
        golden.check(f"mlm_loss_aux{ending}", alone["words"])
        loss = task.total(losses) + task.total(alone)
        golden.check(f"loss{ending}", loss)
    loss.backward()
    golden.check_gradients(gradients(golden, model, task))

    seen, _ = model.regions(regions)
    golden.check("obj_reps", seen[truth.mask], truth.mask[:, : golden.outputs["obj_reps"].shape[1]])
    golden.check("coord_embed", box_waves(regions.boxes, model.regions.box_dim)[truth.mask])
    encoding = model(captions.inputs)
    golden.check("relationship_logits", task.objectives["matching"].head(encoding.pooled))
    common = golden.outputs["mlm_logits_wvc"].shape[1]
    scores = word_scores(task, model, encoding.text)
    golden.check("mlm_logits_wvc", scores[text.mask], F.pad(text.mask, (0, common - text.mask.shape[1])))
    scores = word_scores(task, model, model(others.inputs).text)
    golden.check("mlm_logits_aux", scores[ids > 0], F.pad(ids > 0, (0, common - ids.shape[1])))
    kinds = task.objectives["regions"]
    scores = kinds.predict["classes"].decoder(kinds.transform(encoding.regions))
    golden.check("mvrc_logits", scores[truth.mask], truth.mask)


@pytest.mark.parametrize("name", ["vlbert-vqa", *(["vlbert-vqa-2fc"] if EVERY else [])])
def test_answers_at_the_mask_equal_the_original(golden, perform, name):
    golden = golden(name)
    model, heads = build(golden, readout="before_end")
    asked, targets = golden.outputs, golden.inputs["label"]
    head, table = TRANSFORM, HEADS["vlbert"]["vqa"]
    if golden.config["CLASSIFIER_TYPE"] == "2fc":
        width = golden.config["CLASSIFIER_HIDDEN_SIZE"] / model.dim
        head, table = partial(PLAIN, width=width, activation="relu"), HEADS["vlbert"]["vqa_2fc"]
    task = Answer(model, answers=list(map(str, range(targets.shape[1]))), head=head)
    text = text_of(asked["text_input_ids"], asked["text_mask"], asked["text_token_type_ids"])
    inputs = Inputs(text=text, regions=regions_of(golden.inputs))
    done = perform(model, task, inputs, targets, weights=heads, table=table)
    at = done.encoding.text[torch.arange(len(targets)), asked["answer_position"]]
    assert torch.equal(done.encoding.pooled, at)
    golden.check("label_logits", done.logits)
    golden.check("ans_loss", done.loss)
    golden.check("loss", done.loss)
    golden.check_gradients(gradients(golden, model) | done.gradients)


def test_grounding_equals_the_original(golden):
    """The golden says which regions are right, not by which box: the loss is computed here."""
    golden = golden("vlbert-refcoco")
    model, heads = build(golden)
    task, table = Ground(model, head=PLAIN), HEADS["vlbert"]["refcoco_plus"]
    load_head(task, heads, table, where=golden.name)
    special, words = golden.config["special_ids"], golden.inputs["expression"]
    ids = F.pad(F.pad(words, (1, 0), value=special["CLS"]), (0, 1))
    ids[torch.arange(len(ids)), (words > 0).sum(1) + 1] = special["SEP"]
    regions = regions_of(golden.inputs)
    batch = Batch(ids=tuple(map(str, range(len(ids)))), inputs=Inputs(text=text_of(ids), regions=regions))
    scores = task.score(model(batch.inputs), batch)
    golden.check("label_logits", scores[regions.mask], regions.mask)
    assert torch.equal(scores.argmax(1), golden.outputs["argmax_masked"])
    right = golden.inputs["label"][regions.mask]
    loss = F.binary_cross_entropy_with_logits(scores[regions.mask], right)
    golden.check("cls_loss", loss)
    golden.check("loss", loss)
    loss.backward()
    golden.check_gradients(gradients(golden, model) | restore(_gradients(task), table))


if EVERY:

    @pytest.mark.parametrize("name", ["vlbert-encoder", "vlbert-encoder-1x1-scale"])
    def test_the_encoder_equals_the_original(golden, name):
        """Its golden gives every token and object what it is seen with, and a word to every object."""
        golden = golden(name)
        model, inputs = sized(golden), golden.inputs
        own = {f"vlbert.{key}": one for key, one in golden.weights.items()}
        load_into(model, own, (*VLBERT, *SEEN), where=name)
        activation = {"gelu": nn.GELU, "relu": nn.ReLU}[golden.config["hidden_act"]]
        for layer in model.encoder.layers:
            layer.feedforward.activation = activation()
        text = text_of(inputs["text_input_ids"], inputs["text_mask"], inputs["text_token_type_ids"])
        visual, words = inputs["object_vl_embeddings"].split([golden.config["visual_size"], model.dim], -1)
        parts = model.embedding(text, inputs["text_visual_embeddings"], regions=visual, words=words)
        x = torch.cat(parts, 1)
        real = torch.cat([text.mask, F.pad(inputs["object_mask"].bool(), (0, 1), value=True)], 1)
        packed = golden.outputs["sequence_mask"].bool()
        golden.check("embedding", x[real], packed)
        with capture_attention(model) as maps:
            for number, layer in enumerate(model.encoder.layers, 1):
                x = layer(x, real)
                golden.check(f"hidden_{number}", x[real], packed)
        golden.check("pooled", model.pool(x))
        length = text.ids.shape[1]
        golden.check("object_out", x[:, length:-1] * inputs["object_mask"][..., None])
        first, *_, last = maps.values()
        for key, ours in (("attention_0", first), ("attention_last", last)):
            expected = golden.outputs[key]
            for row, (mine, theirs) in enumerate(zip(real, packed, strict=True)):
                torch.testing.assert_close(
                    ours[row][:, mine][:, :, mine],
                    expected[row][:, theirs][:, :, theirs],
                    atol=2e-5,
                    rtol=1e-4,
                )

    def test_choices_between_texts_that_name_regions_equal_the_original(golden, perform):
        """From the regions on; the image network below them is compared in test_end_to_end.py."""
        golden = golden("vlbert-vcr")
        model, heads = build(golden)
        given, asked, config = golden.inputs, golden.outputs, golden.config
        choices = asked["text_input_ids"].shape[1]
        mask = (given["boxes"][..., 3] > -0.5).repeat_interleave(choices, 0)
        seen = asked["obj_reps"].repeat_interleave(choices, 0)
        model.regions.forward = lambda regions: (seen, mask)
        text = text_of(
            *(asked[f"text_{part}"].flatten(0, 1) for part in ("input_ids", "mask", "token_type_ids", "tags"))
        )
        boxes = F.pad(given["boxes"][..., :4], (0, config["feature_dim"]))
        unseen = regions_of({"im_info": given["im_info"], "boxes": boxes}, repeat=choices)
        inputs = Inputs(text=text, regions=unseen)
        task = Choose(
            model,
            loss="bce" if config["CLASSIFIER_SIGMOID"] else "ce",
            positive_weight=config["CLASSIFIER_SIGMOID_LOSS_POSITIVE_WEIGHT"],
        )
        scale = config["ANS_LOSS_WEIGHT"]
        done = perform(
            model,
            task,
            inputs,
            given["label"],
            weights=heads,
            table=HEADS["vlbert"]["vcr"],
            pairs=choices,
            scale=scale,
        )
        golden.check("label_logits", done.logits)
        golden.check("ans_loss", done.loss / scale)
        # Beside it the original lets the regions say what they are.
        kinds = PLAIN(model.dim, len(heads["cnn_loss_reg.2.bias"]))
        table = [rename("cnn_loss_reg.0.dense", "layers.0"), rename("cnn_loss_reg.2", "layers.2")]
        load_into(kinds, {key: one for key, one in heads.items() if "loss_reg" in key}, table, where="kinds")
        objects = given["boxes"][..., 5].long().repeat_interleave(choices, 0)
        loss = F.cross_entropy(kinds(model(inputs).regions)[mask], objects[mask])
        golden.check("cnn_regularization_loss", loss)
        golden.check("loss", done.loss + loss * config["CNN_LOSS_WEIGHT"])
        (loss * config["CNN_LOSS_WEIGHT"]).backward()
        for key in [key for key in asked if key.startswith("grad.image_feature_extractor.")]:
            del asked[key]
        ours = gradients(golden, model) | done.gradients
        golden.check_gradients(ours | restore(_gradients(kinds), table))

    def test_retrieval_equals_the_original(golden):
        golden = golden("mmbert-retrieval")
        model, heads = build(golden)
        task = asking(golden, model, heads, "matching")
        inputs = Inputs(text=text_of(golden.inputs["text"]), regions=regions_of(golden.inputs))
        sample = Sample(inputs=inputs, mismatch=1 - golden.inputs["relationship_label"].long())
        for ending in ("", "_no_vision"):
            model.blind = bool(ending)
            logits = task.objectives["matching"].head(model(inputs).pooled)
            golden.check(f"relationship_logits{ending}", logits)
            loss = task.losses(model, sample, ["matching"])["matching"]
            golden.check(f"loss{ending}", loss)
            if not ending:
                golden.check("score", logits.sigmoid())
                golden.check("relationship_loss", loss)
                loss.backward()
                golden.check_gradients(gradients(golden, model, task))

    def test_the_first_state_equals_the_original(golden):
        golden = golden("mmbert-distance")
        model, _ = build(golden)
        text = text_of(golden.inputs["text"])
        seeing = model(Inputs(text=text, regions=regions_of(golden.inputs))).text[:, 0]
        blind = model(Inputs(text=text)).text[:, 0]
        golden.check("cls_output_with_vision", seeing)
        golden.check("cls_output_no_vision", blind)
        golden.check("cosine", F.normalize(seeing, dim=-1) @ F.normalize(blind, dim=-1).T)

    def test_word_translation_equals_the_original(golden, perform):
        golden = golden("mmbert-mlt")
        model, heads = build(golden)
        words = golden.outputs["MLT_logits"].shape[1]
        task = Classify(model, labels=tuple(map(str, range(words))))
        inputs = Inputs(text=text_of(golden.inputs["text"]), regions=regions_of(golden.inputs))
        head = {"weights": heads, "table": HEADS["mmbert"]["word_translation"]}
        done = perform(model, task, inputs, golden.inputs["word_de_id"], **head)
        golden.check("MLT_logits", done.logits)
        golden.check("MLT_loss", done.loss)
        golden.check("loss", done.loss)
        golden.check_gradients(gradients(golden, model) | done.gradients)
        model.blind = True
        done = perform(model, task, inputs, golden.inputs["word_de_id"], **head)
        golden.check("MLT_logits_no_vision", done.logits)
        golden.check("loss_no_vision", done.loss)

    def test_masked_words_of_text_pairs_equal_the_original(golden):
        golden = golden("mmbert-taskc")
        model, heads = build(golden)
        task = asking(golden, model, heads, "words")
        text = text_of(golden.inputs["text"])
        golden.check(
            "mlm_logits", word_scores(task, model, model(Inputs(text=text)).text[text.mask]), text.mask
        )
        sample = Sample(inputs=Inputs(text=text), words=golden.inputs["mlm_labels"])
        loss = task.losses(model, sample, ["words"])["words"]
        golden.check("loss", loss)
        loss.backward()
        golden.check_gradients(gradients(golden, model, task))

    def test_translation_equals_the_original(golden):
        """The training rows come from the task's own expansion of source and target."""
        golden = golden("mmbert-mt")
        model, heads = build(golden, readout="before_end")
        given, special = golden.inputs, golden.config["special_ids"]
        steps = golden.outputs["gen_ids"].shape[1]
        task, scores = translator(golden, model, heads, steps)
        source = (given["gen_text"] == special["MASK"]).cumsum(1) == 0  # before the first mask
        text = text_of(given["gen_text"] * source)
        ids = tuple(map(str, range(len(source))))
        for ending, regions in (("", regions_of(given)), ("_no_vision", None)):
            before, prefixes, right = trained(given, special)
            rows = torch.arange(len(source))
            inputs = Inputs(text=before, regions=regions)
            logits = task._next(model, inputs, rows, prefixes, prefixes != special["PAD"])
            golden.check(f"mlm_logits_at_mask{ending}", logits)
            loss = F.cross_entropy(logits, right)
            golden.check(f"loss{ending}", loss)
            if not ending:
                loss.backward()
                heads_of = {f"objectives.words.{key}": one for key, one in _gradients(task).items()}
                golden.check_gradients(gradients(golden, model) | restore(heads_of, VLBERT_PRETRAIN))
            scores.clear()
            with torch.no_grad():
                batch = Batch(ids=ids, inputs=Inputs(text=text, regions=regions))
                found = task.generate(model, batch, Search(max_length=steps))
            expected = golden.outputs[f"gen_ids{ending}"].tolist()
            first = golden.outputs[f"gen_logits_first3{ending}"]
            assert found == [until(row, special["STOP"]) for row in expected]
            alive = [*range(len(expected))]
            for step, ours in zip(range(first.shape[1]), scores, strict=False):
                torch.testing.assert_close(ours, first[alive, step], atol=2e-5, rtol=1e-4)
                alive = [row for row in alive if expected[row][step] != special["STOP"]]
            for row, sentence in enumerate(golden.config[f"generated_sentences{ending or '_with_vision'}"]):
                ours = task.sentence(found[row])
                assert sentence.removeprefix("##").startswith(ours)

    def trained(given, special):
        """The training rows in parts: sources, what is translated before the masks, labels at the masks."""
        rows, labels = given["text"], given["mlm_labels"]
        ends = rows == special["SEP"]
        source = ends.cumsum(1) - ends.int() == 0
        prefix = ~source & ((labels >= 0).cumsum(1) == 0)
        return text_of(rows * source), rows.masked_fill(~prefix, special["PAD"]), labels[labels >= 0]

    def until(row, stop):
        return row[: row.index(stop)] if stop in row else row
