"""VL-BERT and MM-BERT equal jackroos/VL-BERT and phaedonmit/VL-BERT: states, scores, losses, gradients."""

import os

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diptych.convert.rules import Keep, load_into, rename, restore
from diptych.convert.vlbert import VLBERT, fill_vlbert
from diptych.models import VlBert
from diptych.models.vlbert import box_waves
from diptych.nn import ClassifierHead, capture_attention
from diptych.types import Inputs, PaddedRegions, PaddedText

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
    return model, fill_vlbert(model, golden.weights, where=golden.name)


def text_of(ids, mask=None, segments=None, mentions=None):
    return PaddedText(
        ids=ids,
        mask=ids > 0 if mask is None else mask.bool(),
        segments=torch.zeros_like(ids) if segments is None else segments,
        mentions=mentions,
    )


def regions_of(inputs, hidden=None, repeat=1):
    """Boxes in pixels, features behind them; -2 is padding."""
    boxes, features = inputs["boxes"][..., :4], inputs["boxes"][..., 4:]
    sizes = inputs["im_info"][:, :2]
    regions = PaddedRegions(
        features=features,
        boxes=boxes / sizes.repeat(1, 2)[:, None],
        mask=boxes[..., 0] > -1.5,
        image_index=torch.zeros(boxes.shape[:2], dtype=torch.int64),
        sizes=sizes,
        hidden=hidden,
    )
    return regions.map(lambda one: one.repeat_interleave(repeat, 0))


def head_of(golden, heads, places, classes, **options):
    """A head filled by `places` (name of the original to ours), and the table of its names."""
    table = [rename(name, place) for name, place in places.items()]
    own = {key: one for key, one in heads.items() if key.startswith(tuple(places))}
    head = ClassifierHead(golden.config["VLBERT"]["hidden_size"], classes, **options)
    load_into(head, own, table, where=golden.name)
    return head, table


def gradients(golden, model, *parts):
    """Gradients under the names of the original; `parts` are heads and their tables."""
    prefix = next(key for key in golden.weights if key.endswith("word_embeddings.weight"))
    prefix = prefix.removesuffix("word_embeddings.weight")
    result = {
        f"{prefix}{name.removeprefix('vlbert.')}" if name.startswith("vlbert.") else name: one
        for name, one in restore(_gradients(model), VLBERT).items()
    }
    for head, table in parts:
        result |= restore(_gradients(head), table)
    return result


def _gradients(module):
    return {name: one.grad for name, one in module.named_parameters() if one.grad is not None}


def words_head(golden, heads, model):
    """Scores of words: a transform, then the word table and a bias."""
    base, words = "vlbert.mlm_head.predictions", model.word_embedding()
    places = {
        f"{base}.transform.dense": "layers.0",
        f"{base}.transform.LayerNorm": "layers.2",
        f"{base}.bias": "layers.3.bias",
        f"{base}.decoder": "layers.3",
    }
    head, table = head_of(golden, heads, places, words.num_embeddings, layers=2, width=1)
    head.layers[3].weight = words.weight
    return head, table


@pytest.mark.parametrize("name", ["vlbert-encoder", *(["vlbert-encoder-1x1-scale"] if EVERY else [])])
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
    x, real = model.embedding(
        text,
        inputs["text_visual_embeddings"],
        regions=visual,
        words=words,
        mask=inputs["object_mask"].bool(),
    )
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
                ours[row][:, mine][:, :, mine], expected[row][:, theirs][:, :, theirs], atol=2e-5, rtol=1e-4
            )


def test_pretraining_equals_the_original(golden):
    golden = golden("vlbert-pretraining-multitask")
    model, heads = build(golden)
    given = golden.inputs
    regions = regions_of(given, hidden=given["mvrc_ops"] == 1)
    text = text_of(given["text"])
    seen, _ = model.regions(regions)
    width = golden.outputs["obj_reps"].shape[1]
    golden.check("obj_reps", seen[regions.mask], regions.mask[:, :width])
    golden.check("coord_embed", box_waves(regions.boxes, model.regions.box_dim)[regions.mask])

    words, word_names = words_head(golden, heads, model)
    kinds, kind_names = head_of(
        golden,
        heads,
        {"vlbert.mvrc_head.transform.dense": "layers.0", "vlbert.mvrc_head.region_cls_pred": "layers.2"},
        given["mvrc_labels"].shape[-1],
        layers=2,
        width=1,
        norm=False,
    )
    match, match_names = head_of(
        golden, heads, {"vlbert.relationsip_head.caption_image_relationship": "layers.0"}, 2
    )
    encoding = model(Inputs(text=text, regions=regions))
    matching = match(encoding.pooled)
    golden.check("relationship_logits", matching)
    losses = {"relationship_loss": F.cross_entropy(matching, given["relationship_label"])}
    firsts = {}

    scores = words(encoding.text)
    common = golden.outputs["mlm_logits_wvc"].shape[1]
    golden.check("mlm_logits_wvc", scores[text.mask], F.pad(text.mask, (0, common - text.mask.shape[1])))
    each = F.cross_entropy(scores.transpose(1, 2), given["mlm_labels"], ignore_index=-1, reduction="none")
    losses["mlm_loss_wvc"], firsts["mlm_loss_wvc"] = means(each, given["mlm_labels"] >= 0)

    numbers = range(sum(key.startswith("aux_text_") for key in given))
    corpora = [given[f"aux_text_{number}"] for number in numbers]
    longest = max(ids.shape[1] for ids in corpora)
    ids, labels = (
        torch.cat([F.pad(one, (0, longest - one.shape[1]), value=value) for one in given_ones])
        for given_ones, value in ((corpora, 0), ([given[f"aux_mlm_labels_{n}"] for n in numbers], -1))
    )
    scores = words(model(Inputs(text=text_of(ids))).text)
    golden.check("mlm_logits_aux", scores[ids > 0], F.pad(ids > 0, (0, common - longest)))
    each = F.cross_entropy(scores.transpose(1, 2), labels, ignore_index=-1, reduction="none")
    losses["mlm_loss_aux"], firsts["mlm_loss_aux"] = means(each, labels >= 0)

    scores = kinds(encoding.regions)
    golden.check("mvrc_logits", scores[regions.mask], regions.mask)
    each = -(given["mvrc_labels"] * scores.log_softmax(-1)).sum(-1)
    losses["mvrc_loss"], firsts["mvrc_loss"] = means(each, (given["mvrc_labels"].sum(-1) - 1).abs() < 0.1)

    for key, loss in losses.items():
        golden.check(key, loss)
    for key, loss in firsts.items():
        golden.check(f"{key}_batch_first", loss)
    golden.check("loss_batch_first", losses["relationship_loss"] + sum(firsts.values()))
    total = sum(losses.values())
    golden.check("loss", total)
    total.backward()
    golden.check_gradients(
        gradients(golden, model, (words, word_names), (kinds, kind_names), (match, match_names))
    )


def means(each, chosen):
    """The mean of the chosen, and the mean over rows of the means of a row, which the original smooths."""
    each = each * chosen
    counts = chosen.sum(1)
    rows = each.sum(1) / (counts + 1e-4)
    return each.sum() / counts.sum(), rows.sum() / ((counts > 0).sum() + 1e-4)


QUESTIONS = {
    "mlm": (
        {"final_mlp.0.dense": "layers.0", "final_mlp.0.LayerNorm": "layers.2", "final_mlp.2": "layers.3"},
        lambda config: {"width": 1},
    ),
    "2fc": (
        {"final_mlp.1": "layers.0", "final_mlp.4": "layers.2"},
        lambda config: {
            "width": config["CLASSIFIER_HIDDEN_SIZE"] / config["VLBERT"]["hidden_size"],
            "norm": False,
            "activation": "relu",
        },
    ),
}


@pytest.mark.parametrize("name", ["vlbert-vqa", *(["vlbert-vqa-2fc"] if EVERY else [])])
def test_answers_at_the_mask_equal_the_original(golden, name):
    golden = golden(name)
    model, heads = build(golden, readout="before_end")
    places, options = QUESTIONS[golden.config["CLASSIFIER_TYPE"]]
    targets = golden.inputs["label"]
    head, table = head_of(golden, heads, places, targets.shape[1], layers=2, **options(golden.config))
    asked = golden.outputs
    text = text_of(asked["text_input_ids"], asked["text_mask"], asked["text_token_type_ids"])
    encoding = model(Inputs(text=text, regions=regions_of(golden.inputs)))
    assert torch.equal(encoding.pooled, encoding.text[torch.arange(len(targets)), asked["answer_position"]])
    logits = head(encoding.pooled)
    golden.check("label_logits", logits)
    loss = F.binary_cross_entropy_with_logits(logits, targets) * targets.shape[1]
    golden.check("ans_loss", loss)
    golden.check("loss", loss)
    loss.backward()
    golden.check_gradients(gradients(golden, model, (head, table)))


def test_grounding_equals_the_original(golden):
    golden = golden("vlbert-refcoco")
    model, heads = build(golden)
    places = {"final_mlp.0.dense": "layers.0", "final_mlp.2": "layers.2"}
    head, table = head_of(golden, heads, places, 1, layers=2, width=1, norm=False)
    special, words = golden.config["special_ids"], golden.inputs["expression"]
    ids = F.pad(F.pad(words, (1, 0), value=special["CLS"]), (0, 1))
    ids[torch.arange(len(ids)), (words > 0).sum(1) + 1] = special["SEP"]
    regions = regions_of(golden.inputs)
    scores = head(model(Inputs(text=text_of(ids), regions=regions)).regions).squeeze(-1)
    golden.check("label_logits", scores[regions.mask], regions.mask)
    best = scores.masked_fill(~regions.mask, -torch.inf).argmax(1)
    assert torch.equal(best, golden.outputs["argmax_masked"])
    loss = F.binary_cross_entropy_with_logits(scores[regions.mask], golden.inputs["label"][regions.mask])
    golden.check("cls_loss", loss)
    golden.check("loss", loss)
    loss.backward()
    golden.check_gradients(gradients(golden, model, (head, table)))


def test_choices_between_texts_that_name_regions_equal_the_original(golden):
    """From the regions on: the image network below them is not ours to run yet."""
    golden = golden("vlbert-vcr")
    model, heads = build(golden)
    given, asked = golden.inputs, golden.outputs
    choices = asked["text_input_ids"].shape[1]
    mask = (given["boxes"][..., 3] > -0.5).repeat_interleave(choices, 0)
    seen = asked["obj_reps"].repeat_interleave(choices, 0)
    model.regions.forward = lambda regions: (seen, mask)
    text = text_of(
        *(asked[f"text_{part}"].flatten(0, 1) for part in ("input_ids", "mask", "token_type_ids", "tags"))
    )
    empty = {"im_info": given["im_info"], "boxes": given["boxes"]}
    encoding = model(Inputs(text=text, regions=regions_of(empty, repeat=choices)))
    head, table = head_of(golden, heads, {"final_mlp.1": "layers.0"}, 1)
    logits = head(encoding.pooled).reshape(-1, choices)
    golden.check("label_logits", logits)
    weight = golden.config["CLASSIFIER_SIGMOID_LOSS_POSITIVE_WEIGHT"]
    right = F.one_hot(given["label"], choices).float()
    loss = F.binary_cross_entropy_with_logits(logits, right, pos_weight=torch.tensor(weight))
    loss = loss * (weight + 1) / (2 * weight)
    golden.check("ans_loss", loss)
    places = {"cnn_loss_reg.0.dense": "layers.0", "cnn_loss_reg.2": "layers.2"}
    classes = len(heads["cnn_loss_reg.2.bias"])
    kinds, kind_names = head_of(golden, heads, places, classes, layers=2, width=1, norm=False)
    objects = given["boxes"][..., 5].long().repeat_interleave(choices, 0)
    of_objects = F.cross_entropy(kinds(encoding.regions)[mask], objects[mask])
    golden.check("cnn_regularization_loss", of_objects)
    loss = loss * golden.config["ANS_LOSS_WEIGHT"] + of_objects * golden.config["CNN_LOSS_WEIGHT"]
    golden.check("loss", loss)
    loss.backward()
    for key in [key for key in golden.outputs if key.startswith("grad.image_feature_extractor.")]:
        del golden.outputs[key]
    golden.check_gradients(gradients(golden, model, (head, table), (kinds, kind_names)))


@pytest.mark.parametrize(
    ("name", "place", "prefix"),
    [
        ("mmbert-retrieval", "vlbert.relationsip_head.caption_image_relationship", "relationship"),
        *([("mmbert-mlt", "vlbert.MLT_head.MLT_cls_pred", "MLT")] if EVERY else []),
    ],
)
def test_retrieval_and_word_translation_equal_the_original(golden, name, place, prefix):
    golden = golden(name)
    model, heads = build(golden)
    head, table = head_of(golden, heads, {place: "layers.0"}, golden.outputs[f"{prefix}_logits"].shape[1])
    inputs = Inputs(text=text_of(golden.inputs["text"]), regions=regions_of(golden.inputs))

    def loss_of(logits):
        if "word_de_id" in golden.inputs:
            return F.cross_entropy(logits, golden.inputs["word_de_id"])
        return F.binary_cross_entropy_with_logits(logits[:, 0], golden.inputs["relationship_label"])

    logits = head(model(inputs).pooled)
    loss = loss_of(logits)
    golden.check(f"{prefix}_logits", logits)
    golden.check(f"{prefix}_loss", loss)
    golden.check("loss", loss)
    if "score" in golden.outputs:
        golden.check("score", logits.sigmoid())
    loss.backward()
    golden.check_gradients(gradients(golden, model, (head, table)))
    model.blind = True
    logits = head(model(inputs).pooled)
    golden.check(f"{prefix}_logits_no_vision", logits)
    golden.check("loss_no_vision", loss_of(logits))


if EVERY:

    def test_the_first_state_equals_the_original(golden):
        golden = golden("mmbert-distance")
        model, _ = build(golden)
        text = text_of(golden.inputs["text"])
        seeing = model(Inputs(text=text, regions=regions_of(golden.inputs))).text[:, 0]
        blind = model(Inputs(text=text)).text[:, 0]
        golden.check("cls_output_with_vision", seeing)
        golden.check("cls_output_no_vision", blind)
        golden.check("cosine", F.normalize(seeing, dim=-1) @ F.normalize(blind, dim=-1).T)

    def test_masked_words_of_text_pairs_equal_the_original(golden):
        golden = golden("mmbert-taskc")
        model, heads = build(golden)
        words, names = words_head(golden, heads, model)
        text, labels = text_of(golden.inputs["text"]), golden.inputs["mlm_labels"]
        scores = words(model(Inputs(text=text)).text)
        golden.check("mlm_logits", scores[text.mask], text.mask)
        loss = F.cross_entropy(scores.transpose(1, 2), labels, ignore_index=-1)
        golden.check("loss", loss)
        loss.backward()
        golden.check_gradients(gradients(golden, model, (words, names)))

    def test_translation_equals_the_original(golden):
        golden = golden("mmbert-mt")
        model, heads = build(golden, readout="before_end")
        words, names = words_head(golden, heads, model)
        given, regions = golden.inputs, regions_of(golden.inputs)
        target = given["mlm_labels"].max(1).values
        for ending, seen in (("", regions), ("_no_vision", None)):
            scores = words(model(Inputs(text=text_of(given["text"]), regions=seen)).pooled)
            golden.check(f"mlm_logits_at_mask{ending}", scores)
            loss = F.cross_entropy(scores, target)
            golden.check(f"loss{ending}", loss)
            if seen is not None:
                loss.backward()
                golden.check_gradients(gradients(golden, model, (words, names)))
            with torch.no_grad():
                ids, logits = greedy(golden, model, words, seen)
            golden.check(f"gen_logits_first3{ending}", logits)
            stopped = (golden.outputs[f"gen_ids{ending}"] == golden.config["special_ids"]["STOP"]).cumsum(1)
            real = (stopped - stopped.diff(prepend=torch.zeros(len(ids), 1).long())) == 0
            assert torch.equal(ids[real], golden.outputs[f"gen_ids{ending}"][real])


def greedy(golden, model, words, regions):
    """The best word at the mask, which then moves on by one; zeros are left out of a row."""
    special, text = golden.config["special_ids"], golden.inputs["gen_text"]
    mask, end = (torch.full((len(text), 1), special[name]) for name in ("MASK", "SEP"))
    before = (text == special["MASK"]).cumsum(1) == 0
    written, logits = text * before, []
    for _ in range(golden.outputs["gen_ids"].shape[1]):
        ids = torch.cat([written, mask, end], 1)
        states = model(Inputs(text=text_of(ids), regions=regions)).text
        logits.append(words(states[:, -2]))
        written = torch.cat([written, logits[-1].argmax(1, keepdim=True)], 1)
    steps = golden.outputs["gen_logits_first3"].shape[1]
    return written[:, text.shape[1] :], torch.stack(logits[:steps], 1)
