import json
from functools import partial

import pytest
import torch

from diptych.convert import HeadWeights, load_text_encoder, restore, start_task
from diptych.convert.bert import BERT
from diptych.convert.lxmert import LXMERT, LXMERT_PRETRAIN
from diptych.errors import CheckpointMismatch, ConfigError
from diptych.models import lxmert_tiny
from diptych.models.concat import BertTower
from diptych.nn import ClassifierHead
from diptych.recipe import compose
from diptych.recipe.build import build, load_weights
from diptych.recipe.settle import settle
from diptych.tasks import Answer, Classify, Pretrain, Translate, TranslateMasked
from diptych.tasks.objectives import Answers, MaskedRegions, MaskedText, Matching, RegionLabels
from diptych.text import WordPiece, write_vocabulary
from diptych.text.tokenizer import SPECIAL_TOKENS

LEARNED = ("dog", "2", "gray", "cat")
WANTED = ("Grey", "platypus", "a dog.", "two", "")


def pretrained(model, answers=LEARNED, seed=1):
    torch.manual_seed(seed)
    predict = {"labels": partial(RegionLabels, classes=5)}
    objectives = {
        "matching": Matching,
        "words": MaskedText,
        "regions": partial(MaskedRegions, predict=predict),
        **({"answers": partial(Answers, labels=answers)} if answers else {}),
    }
    return Pretrain(model, objectives=objectives)


def answering(model, answers=WANTED):
    return Answer(model, answers=answers, head=partial(ClassifierHead, layers=2))


def original(task):
    """The heads of a task under LXMERT's names."""
    table = [line for line in LXMERT_PRETRAIN if "attr" not in str(line) and "feat" not in str(line)]
    return restore(task.state_dict(), table)


@pytest.mark.parametrize("form", ["bundle", "original"])
def test_answers_find_their_rows_by_spelling(form, tmp_path):
    model = lxmert_tiny()
    source, task = pretrained(model), answering(model)
    heads = HeadWeights(
        where=tmp_path / "w.pth",
        task=source if form == "bundle" else None,
        weights=original(source) if form == "original" else {},
    )
    told = start_task(task, model, heads, learned=None if form == "bundle" else LEARNED)
    assert "3 of 5" in told
    assert "'platypus'" in told
    rows, before = (one.head.layers[3] for one in (task, source.objectives["answers"]))
    for row, number in enumerate((2, None, 0, 1, None)):
        expected = torch.zeros(len(rows.weight[0])) if number is None else before.weight[number]
        assert torch.equal(rows.weight[row], expected)
        assert rows.bias[row] == (0 if number is None else before.bias[number])
    assert torch.equal(task.head.layers[0].weight, source.objectives["answers"].head.layers[0].weight)


def test_a_list_of_another_length_is_refused(tmp_path):
    model = lxmert_tiny()
    heads = HeadWeights(where=tmp_path / "w.pth", weights=original(pretrained(model)))
    with pytest.raises(CheckpointMismatch, match=r"4 rows.* 3 answers"):
        start_task(answering(model), model, heads, learned=LEARNED[:3])
    with pytest.raises(ConfigError, match=r"w\.pth.*4 rows.*weights\.answers"):
        start_task(answering(model), model, heads, learned=None)


def test_a_checkpoint_without_answer_head(tmp_path):
    model = lxmert_tiny()
    heads = HeadWeights(where=tmp_path / "w.pth", weights=original(pretrained(model, answers=())))
    task = answering(model)
    before = {name: one.clone() for name, one in task.state_dict().items()}
    assert start_task(task, model, heads, learned=None) is None
    assert all(torch.equal(one, before[name]) for name, one in task.state_dict().items())
    with pytest.raises(ConfigError, match=r"w\.pth.*weights\.answers"):
        start_task(task, model, heads, learned=LEARNED)


def test_other_tasks_start_anew(tmp_path):
    model = lxmert_tiny()
    heads = HeadWeights(where=tmp_path, task=pretrained(model))
    assert start_task(Classify(model, labels=["no", "yes"]), model, heads, learned=None) is None


@pytest.mark.parametrize("form", ["bundle", "original"])
def test_pretraining_goes_on_with_its_heads(form, tmp_path):
    model = lxmert_tiny()
    source, task = pretrained(model), pretrained(model, answers=("2", "cow"), seed=2)
    heads = HeadWeights(
        where=tmp_path,
        task=source if form == "bundle" else None,
        weights=original(source) if form == "original" else {},
    )
    told = start_task(task, model, heads, learned=None if form == "bundle" else LEARNED)
    assert "matching, words, regions" in told
    assert "1 of 2" in told
    for name in ("matching", "words", "regions"):
        for one, other in zip(
            task.objectives[name].parameters(), source.objectives[name].parameters(), strict=True
        ):
            assert torch.equal(one, other)


@pytest.mark.parametrize("form", ["bundle", "original"])
@pytest.mark.parametrize("task", [Translate, TranslateMasked])
def test_translation_starts_with_the_head_of_masked_words(form, task, tmp_path):
    write_vocabulary(tmp_path / "vocabulary.txt", SPECIAL_TOKENS)
    words = WordPiece(tmp_path / "vocabulary.txt")
    model = lxmert_tiny()
    sizes = {"layers": 1, "heads": 4, "hidden": 192, "beam": 1} if task is Translate else {}
    source, made = pretrained(model), task(model, text=words, **sizes)
    heads = HeadWeights(
        where=tmp_path,
        task=source if form == "bundle" else None,
        weights=original(source) if form == "original" else {},
    )
    told = start_task(made, model, heads, learned=None)
    assert "words" in told
    for one, other in zip(made.head.parameters(), source.objectives["words"].parameters(), strict=True):
        assert torch.equal(one, other)


def bert(layers, *, pooler=True):
    """A BERT with the heads of its own pre-training, and the tower that it fills."""
    torch.manual_seed(3)
    tower = BertTower(vocab_size=1000, width=48, heads=4, hidden=192, layers=layers, dim=8)
    weights = {f"bert.{name}": one for name, one in restore(tower.state_dict(), BERT).items()}
    heads = original(pretrained(lxmert_tiny(), answers=(), seed=4))
    weights |= {name: one for name, one in heads.items() if name.startswith("cls.")}
    return tower, {name: one for name, one in weights.items() if pooler or "pooler" not in name}


@pytest.mark.parametrize("pooler", [True, False])
def test_a_bert_fills_what_reads_text(tmp_path, pooler):
    tower, weights = bert(layers=3, pooler=pooler)
    torch.save(weights, tmp_path / "bert.bin")
    model = lxmert_tiny(layers=2)
    seeing = {name: one.clone() for name, one in model.state_dict().items() if "region" in name}
    heads = load_text_encoder(model, tmp_path / "bert.bin")
    assert torch.equal(model.text.words.weight, tower.text.words.weight)
    for one, other in zip(model.text_encoder.layers, tower.encoder.layers, strict=False):
        assert torch.equal(one.attention.query.weight, other.attention.query.weight)
    assert torch.equal(model.pool.dense.weight, tower.pool.dense.weight) == pooler
    assert all(torch.equal(one, model.state_dict()[name]) for name, one in seeing.items())
    task = pretrained(model)
    told = start_task(task, model, HeadWeights(where=tmp_path, weights=heads), learned=None)
    assert "matching, words" in told
    assert torch.equal(
        task.objectives["words"].head.transform[0].weight, weights["cls.predictions.transform.dense.weight"]
    )


def test_a_bert_that_is_too_shallow_or_narrow_is_a_mismatch(tmp_path):
    torch.save(bert(layers=1)[1], tmp_path / "bert.bin")
    with pytest.raises(CheckpointMismatch, match=r"text_encoder\.layers\.1"):
        load_text_encoder(lxmert_tiny(layers=2), tmp_path / "bert.bin")
    with pytest.raises(CheckpointMismatch, match=r"\(1000, 48\)"):
        load_text_encoder(lxmert_tiny(dim=96), tmp_path / "bert.bin")


def test_a_checkpoint_with_a_part_missing_fills_nothing(tmp_path):
    weights = restore(lxmert_tiny().state_dict(), LXMERT)
    lost = next(name for name in weights if "x_layers" in name)
    path = tmp_path / "model_LXRT.pth"
    torch.save({f"module.bert.{name}": one for name, one in weights.items() if name != lost}, path)
    with pytest.raises(CheckpointMismatch, match="1 unfilled"):
        load_weights(lxmert_tiny(), {"model": str(path)}, None)


@pytest.mark.parametrize("place", ["beside", "root", "given", "off", "nowhere"])
def test_a_run_finds_the_list_of_answers(tmp_path, memes, place):
    """From the words of a user to the weights of a task, with an original file of several GPUs."""
    words = [
        "model=lxmert_tiny", "data=hateful_memes", "task=answer", "task.answers=[benign,hateful]",
        f"root={memes}", f"out={tmp_path}/run", f"weights.model={tmp_path}/w/model_LXRT.pth",
    ]  # fmt: skip
    config = compose(words)
    del config["task"]["labels"]  # of the data set, for another task
    settled = settle({**config, "weights": dict.fromkeys(config["weights"])}, tmp_path)
    node = settled.config["model"]
    torch.manual_seed(5)
    sizes = {"vocab_size": node["vocab_size"], "feature_dim": node["feature_dim"]}
    model = lxmert_tiny(**sizes)
    source = pretrained(model, answers=("hateful", "dog"))
    (tmp_path / "w").mkdir()
    weights = {f"bert.{name}": one for name, one in restore(model.state_dict(), LXMERT).items()}
    weights |= original(source)
    torch.save({f"module.{name}": one for name, one in weights.items()}, tmp_path / "w/model_LXRT.pth")
    answers = json.dumps([{"ans": "hateful", "dsets": ["vqa"]}, {"ans": "dog", "dsets": []}])
    root = tmp_path / "root"
    (root / "data/lxmert").mkdir(parents=True)
    file = {"beside": tmp_path / "w/all_ans.json", "root": root / "data/lxmert/all_ans.json"}.get(place)
    (file or tmp_path / "mine.json").write_text(answers)
    given = {"given": str(tmp_path / "mine.json"), "off": False}.get(place)
    config = {**settled.config, "root": str(root), "weights": {**config["weights"], "answers": given}}
    settled = type(settled)(**{**vars(settled), "config": config})
    if place == "nowhere":
        with pytest.raises(ConfigError, match=r"model_LXRT\.pth.*2 rows"):
            build(settled)
        return
    parts = build(settled)
    row = parts.task.head.layers[3].weight[1]
    same = torch.equal(row, source.objectives["answers"].head.layers[3].weight[0])
    assert same == (place != "off")
    assert (parts.start is None) == (place == "off")
    assert parts.start is None or "1 of 2" in parts.start
