"""From an official file and a feature store to the logits of the original: nothing is given as a tensor.

A golden holds token ids, regions and logits. Its sentences are written in words that the tokenizer turns into
just these ids, its regions into a store in pixels, its weights into a file that `diptych convert` reads.
"""

import json
import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from diptych.bundle import load_bundle
from diptych.convert import convert_checkpoint
from diptych.data import Collate, Sources, image_keys, open_regions
from diptych.datasets import Data, Mlt, Multi30k, Nlvr2, Vqa
from diptych.datasets.lxmert import LxmertPretraining
from diptych.features import write_store
from diptych.predict import retrieve
from diptych.predict.retrieval import Measuring
from diptych.text import write_vocabulary
from diptych.text.tokenizer import SPECIAL_TOKENS
from diptych.types import EVERYTHING, FeatureMeta, Regions

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection
SIZE = (1024, 512)  # of a picture, if the golden does not say; scaling by powers of two is exact
FEATURES = ("visual_feats", "img_feat", "img_feats", "visual_embeddings", "image_feature_0")


@dataclass(frozen=True)
class Seen:
    """Regions of the pictures of every example.

    Args:
        picture: number of the picture that a region belongs to; -1 is padding.
    """

    features: Tensor
    boxes: Tensor
    picture: Tensor
    sizes: Tensor

    @property
    def count(self) -> int:
        return int(self.picture.max()) + 1

    def regions(self, example: int, picture: int, names: list[str], classes: list[str]) -> Regions:
        """One picture. Its object names, divided among its regions, are added to `classes`."""
        own = self.picture[example] == picture
        size = self.sizes[example]
        shares = np.array_split(names, int(own.sum())) if names else []
        labels = np.arange(len(classes), len(classes) + len(shares)) if names else None
        classes += [" ".join(share) for share in shares]
        return Regions(
            features=self.features[example, own].numpy(),
            boxes=(self.boxes[example, own] * size.repeat(2)).numpy(),
            size=(int(size[0]), int(size[1])),
            labels=labels,
        )


def seen(golden, examples):
    """The regions of a golden, whichever original it comes from."""
    given, words = golden.inputs, ids_of(golden).shape[-1]
    if "boxes" in given:  # VL-BERT: pixels, then features; -2 is padding
        sizes = given["im_info"][:, :2]
        boxes, features = given["boxes"].split([4, given["boxes"].shape[-1] - 4], -1)
        mask, boxes = boxes[..., 0] > -1.5, boxes / sizes.repeat(1, 2)[:, None]
        return Seen(features, boxes, torch.where(mask, 0, -1), sizes)
    if "image_feature_left" in given:  # mmf
        sides = [(given[f"image_feature_{one}"], given[f"max_features_{one}"]) for one in ("left", "right")]
        features = torch.stack([one for one, _ in sides], 1)
        mask = torch.arange(features.shape[2]) < torch.stack([count for _, count in sides], 1)[..., None]
    else:
        features = next(given[name] for name in FEATURES if name in given)
        mask = torch.ones(features.shape[:-1], dtype=torch.bool)
    if "max_features" in given:
        mask = torch.arange(features.shape[1]) < given["max_features"][:, None]
    boxes = next((given[name] for name in ("visual_boxes", "img_pos_feat") if name in given), None)
    if "img_feats" in given:  # Oscar: six numbers of the box behind the features
        features, boxes = features[..., :-6], features[..., -6:]
        mask = given["attention_mask"][..., words:].bool()
    if boxes is None:
        boxes = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(*features.shape[:-1], 4)
    if "attn_masks" in given:  # UNITER: texts and regions are moved together, so lengths say what is real
        length = given["attn_masks"].sum(1) - (ids_of(golden) != 0).sum(1)
        mask = torch.arange(features.shape[1]) < length[:, None]
    mask = given["image_mask"].bool() if "image_mask" in given else mask
    # Rows of one example are its pictures, unless the golden gives every region a type.
    rows = mask.numel() // mask.shape[-1] // examples
    picture = torch.arange(rows).repeat(examples).reshape(mask.shape[:-1])[..., None].expand(mask.shape)
    if "visual_embeddings_type" in given:
        picture = given["visual_embeddings_type"]
    if "img_type_ids" in given:
        picture = given["img_type_ids"] - 1  # type 0 is that of texts
    picture = torch.where(mask, picture, -1)
    features, boxes = (one.reshape(examples, -1, one.shape[-1]) for one in (features, boxes[..., :4]))
    return Seen(features, boxes, picture.reshape(examples, -1), torch.tensor([SIZE] * examples))


def ids_of(golden):
    """Token ids and their segments: as the model gets them, special tokens included."""
    given = golden.inputs.get("input_ids", golden.inputs.get("text"))
    return golden.outputs.get("text_input_ids", given)


def segments_of(golden):
    given = golden.inputs | golden.outputs
    names = ("text_token_type_ids", "token_type_ids", "segment_ids")
    return next((given[name] for name in names if name in given), torch.zeros_like(ids_of(golden)))


def write_weights(golden, place, texts):
    """The weights as somebody would leave them: a file, its settings and its vocabulary."""
    place.mkdir()
    save_file({key: one.contiguous() for key, one in golden.weights.items()}, place / "weights.safetensors")
    (place / "config.json").write_text(json.dumps(golden.config | golden.config.get("VLBERT", {})))
    if (tokens := golden.config.get("vocab")) is None:
        words = max((one for key, one in golden.weights.items() if "word_embedding" in key), key=len)
        tokens = [f"w{number}" for number in range(len(words))]
        last = int((texts[0] != 0).sum()) - 1
        special = {"[PAD]": 0, "[CLS]": int(texts[0, 0]), "[SEP]": int(texts[0, last])}
        special["[MASK]"] = golden.config.get("special_ids", {}).get("MASK", 4)
        unused = set(range(len(tokens))) - {*texts.flatten().tolist(), *special.values()}
        special["[UNK]"] = min(unused)
        for token in SPECIAL_TOKENS:
            tokens[special[token]] = token
    write_vocabulary(place / "vocab.txt", tokens)
    return tokens


def settings_of(golden, shown):
    """What a converter cannot see in files that are not as published."""
    if "vocab" in golden.config:  # with "café", which an uncased tokenizer never gives
        return {"processor": {"text": {"strip_accents": True}}}
    if "VLBERT" not in golden.config:
        return {}
    # MM-BERT reads pairs of texts as one segment; no weight says so.
    processor = {"processor": {"one_segment": True}} if "MLT_words" in golden.config["VLBERT"] else {}
    # Two widths share a matrix; and the golden has a region for the whole picture.
    both = golden.weights["image_feature_extractor.obj_downsample.1.weight"].shape[1]
    width = shown.features.shape[-1]
    return {"model": {"feature_dim": width, "box_dim": both - width, "whole_image": False}, **processor}


def as_text(ids, tokens):
    """The words between [CLS] and the first [SEP], and those up to the second one."""
    words = [tokens[number] for number in ids.tolist() if number]
    first, second = [*" ".join(words[1:]).split("[SEP]"), ""][:2]
    return first.strip(), second.split()


def write_questions(root, texts):
    """VQA v2's file of a test split; returns the split and the keys of its pictures."""
    rows = [
        {"image_id": 10 + number, "question": text, "question_id": 10_000 + number}
        for number, text in enumerate(texts)
    ]
    head = {"info": {"version": "2.0"}, "task_type": "Open-Ended", "data_subtype": "test2015"}
    (root / "v2_OpenEnded_mscoco_test2015_questions.json").write_text(json.dumps(head | {"questions": rows}))
    return Vqa(root, "test")


def write_statements(root, texts, *, together=False):
    """NLVR2's file of JSON lines, and a row for each of two pictures."""
    rows = [{"identifier": f"test1-{number}-0-1", "sentence": text} for number, text in enumerate(texts)]
    (root / "test1.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Nlvr2(root, "test1", together=together)


def write_triplets(root, texts):
    """The same file, and one row with both pictures."""
    return write_statements(root, texts, together=True)


def write_pretraining(root, texts):
    """LXMERT's file of pre-training: captions of pictures of COCO."""
    rows = [
        {"img_id": f"COCO_val2014_{number:012d}", "sentf": {"mscoco": [text]}, "labelf": {}}
        for number, text in enumerate(texts)
    ]
    (root / "mscoco_minival.json").write_text(json.dumps(rows))
    return LxmertPretraining(root, "mscoco_minival")


def write_captions(root, texts):
    """Multi30k's files in one folder: an English caption, the same as its translation, and the picture."""
    for ending, rows in (("en", texts), ("de", texts), ("images", [f"{n}.jpg" for n in range(len(texts))])):
        (root / f"test_2016_flickr.{ending}").write_text("\n".join(rows) + "\n")
    return Multi30k(root, "test_2016_flickr", lang="en")


def write_words(root, texts):
    """MLT's file of a test set: the ambiguous word, a translation, its sentence and the picture."""
    (root / "test_sets").mkdir()
    rows = [f"{text} | ein hut . | {number}.jpg\n" for number, text in enumerate(texts)]
    (root / "test_sets" / "ende_test2016.txt").write_text("".join(rows))
    return Mlt(root, "test_2016_flickr")


def keys_of(example):
    """The pictures of an example, left before right."""
    return list(dict.fromkeys(key for pair in example.pairs for key in image_keys(pair)))


@pytest.fixture
def prepared(golden, goldens, tmp_path):
    """A golden, the bundle of its weights, the official file of its texts, and the store of its regions."""

    def make(name, write, scores):
        found = golden(name)
        about = json.loads((goldens / f"{name}.json").read_text())
        found = replace(found, config=about | found.config)
        examples = len(found.outputs[scores])
        ids, shown = ids_of(found), seen(found, examples)
        texts = ids.reshape(examples, -1, ids.shape[-1])[:, 0]
        tokens = write_weights(found, tmp_path / "given", texts)
        overrides = settings_of(found, shown)
        convert_checkpoint(tmp_path / "given", tmp_path / "bundle", overrides=overrides)
        bundle = load_bundle(tmp_path / "bundle")
        words = [as_text(row, tokens) for row in texts]
        if write is write_words:  # its file has both texts
            words = [(f"{word} | hut | {' '.join(more)}", more) for word, more in words]
        split = write(tmp_path, found.config.get("sentences") or [text for text, _ in words])
        classes, rows = [], []
        for number, example in enumerate(split):
            for picture, key in enumerate(keys_of(example)):
                names = words[number][1] if bundle.processor.tags else []
                rows.append((key, shown.regions(number, picture, names, classes)))
        meta = FeatureMeta(feature_dim=shown.features.shape[-1], classes=tuple(classes))
        write_store(tmp_path / "store", rows, meta)
        return found, bundle, split

    return make


def batches(bundle, split, store, size):
    collate = Collate(bundle.processor, sources=Sources(regions=open_regions(bundle.processor, store, {})))
    examples = [*split]
    for start in range(0, len(examples), size):
        yield start, collate(examples[start : start + size])


CASES = [
    ("lxmert-vqa", write_questions, "logits"),
    ("lxmert-nlvr2", write_statements, "logits"),
    ("uniter-vqa", write_questions, "scores"),
    ("uniter-nlvr2-paired-attn", write_statements, "scores"),
    ("oscar-vqa", write_questions, "logits"),
    ("mmf-visualbert-vqa", write_questions, "logits"),
    ("vlbert-vqa", write_questions, "label_logits"),
]
if EVERY:
    CASES += [
        ("uniter-nlvr2-pair", write_statements, "scores"),
        ("uniter-nlvr2-triplet", write_triplets, "scores"),
        ("oscar-nlvr2-pair", write_statements, "logits"),
        ("oscarplus-nlvr2-pair", write_statements, "logits"),
        ("visualbert-nlvr2", write_triplets, "logits"),
        ("mmf-visualbert-nlvr2", write_statements, "logits"),
        ("vlbert-vqa-2fc", write_questions, "label_logits"),
        ("mmbert-mlt", write_words, "MLT_logits"),
        ("mmbert-retrieval", write_captions, "relationship_logits"),
    ]
# Its words change their segment without a [SEP], which no text can say: segments come in as they are.
RANDOM_SEGMENTS = {"visualbert-nlvr2"}


@pytest.mark.parametrize(("name", "write", "scores"), CASES, ids=[one[0] for one in CASES])
def test_logits_equal_the_original(prepared, tmp_path, name, write, scores):
    golden, bundle, split = prepared(name, write, scores)
    count = len(golden.outputs[scores])
    ids, segments = (
        one.reshape(count, -1, one.shape[-1])[:, 0] for one in (ids_of(golden), segments_of(golden))
    )
    for size in (count, 1):  # padding must not matter
        found = []
        for start, batch in batches(bundle, split, tmp_path / "store", size):
            text, rows = batch.inputs.text, slice(start, start + size)
            length = text.ids.shape[1]
            expected = ids[rows].repeat_interleave(batch.pairs, 0)
            named = segments[rows, :length].repeat_interleave(batch.pairs, 0)
            assert torch.equal(text.ids, expected[:, :length])
            assert not expected[:, length:].any()
            assert torch.equal(text.mask, text.ids != 0)
            if name in RANDOM_SEGMENTS:
                object.__setattr__(text, "segments", named)
            assert torch.equal(text.segments, named)
            with torch.no_grad():
                found.append(bundle.task(bundle.model, batch).logits)
        golden.check(scores, torch.cat(found))


@pytest.mark.skipif(not EVERY, reason="the golden is not among those of the repository")
def test_cosines_of_translations_equal_the_original(prepared, tmp_path):
    """A sentence with its picture, and a sentence alone: the original compares their first states."""
    golden, _, _ = prepared("mmbert-distance", write_captions, "cls_output_with_vision")
    node = {"_target_": "diptych.datasets.Multi30k", "task": "translation_retrieval"}
    found = retrieve(
        tmp_path / "bundle",
        "test_2016_flickr",
        by="cosine",
        root=tmp_path,
        data=Data(node=node, why="the test"),
        features=tmp_path / "store",
        out=tmp_path / "out",
        measuring=Measuring(samples=10),
    )
    assert set(found.measures) == {"source_to_target", "target_to_source"}
    golden.check("cosine", torch.from_numpy(np.load(tmp_path / "out" / "scores.npy")))


def test_logits_of_pretraining_equal_the_original(prepared, tmp_path):
    """The golden's words and features are damaged already: `[MASK]` is a word of its sentences."""
    golden, bundle, split = prepared("lxmert-pretraining", write_pretraining, "matched_logits")
    ((_, batch),) = batches(bundle, split, tmp_path / "store", len(split))
    text, ids = batch.inputs.text, ids_of(golden)
    assert torch.equal(text.ids, ids)
    assert torch.equal(text.mask, golden.inputs["attention_mask"].bool())
    parts = bundle.task.objectives
    with torch.no_grad():
        encoding = bundle.model(batch.inputs, EVERYTHING)
        golden.check("pooled", encoding.pooled)
        golden.check("matched_logits", parts["matching"].head(encoding.pooled))
        golden.check("answer_logits", parts["answers"].head(encoding.pooled))
        words = parts["words"].head(encoding.text, bundle.model.word_embedding().weight)
        golden.check("lm_logits", words[text.mask], text.mask)
        regions = parts["regions"].transform(encoding.regions)
        for name, part in (("obj", "labels"), ("attr", "attributes"), ("feat", "features")):
            golden.check(f"visual_logits.{name}", parts["regions"].predict[part].decoder(regions))
