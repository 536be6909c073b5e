"""Both forms of translation, on a language of a few words."""

from dataclasses import replace

import pytest
import torch

from diptych.bundle import load_bundle, save_bundle
from diptych.data import Collate, Processor, Sources
from diptych.errors import ConfigError, FormatError
from diptych.models import vlbert_tiny
from diptych.recipe.call import call
from diptych.tasks import Search, Translate, TranslateMasked
from diptych.text import WordPiece, write_vocabulary
from diptych.types import Example, FeatureMeta, Pair, Regions

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("dog", "cat", "runs", "Hund", "Katze", "rennt", "##e", ".", "the")
SENTENCES = [
    ("dog runs .", "Hund rennt."),
    ("the cat", "Katze"),
    ("", "Hunde"),
    ("cat cat", "Katze Hund rennt"),
]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "vocabulary.txt"
    write_vocabulary(path, [*SPECIAL, *WORDS])
    return path


@pytest.fixture(scope="module")
def text(vocabulary):
    return WordPiece(vocabulary, lowercase=False)


class Store:
    """Regions by key: numbers that are the same in every run."""

    meta = FeatureMeta(feature_dim=4)

    def __getitem__(self, key):
        generator = torch.Generator().manual_seed(len(key))
        features = torch.randn(1 + len(key), 4, generator=generator).numpy()
        boxes = torch.rand(1 + len(key), 4, generator=generator).sort(-1).values.numpy()
        return Regions(features=features, boxes=boxes * 9, size=(10, 10))

    def __contains__(self, key):
        return True

    def count(self, key):
        return 1 + len(key)


@pytest.fixture(scope="module")
def collate(text):
    def make(task, *, image=None, rows=SENTENCES, labeled=True, max_tokens=12):
        examples = [
            Example(
                id=str(number),
                pairs=(Pair(image=image, text=source, more_texts=(target,)),),
                target=target if labeled else None,
            )
            for number, (source, target) in enumerate(rows)
        ]
        processor = Processor(text=text, regions=True, max_tokens=max_tokens)
        return Collate(processor, sources=Sources(regions=Store()), targets=task.targets)(examples)

    return make


def build(text, form, **settings):
    torch.manual_seed(0)
    model = vlbert_tiny(
        vocab_size=len(text.tokens) + 3, feature_dim=4, box_dim=8
    )  # rows beyond the vocabulary
    sizes = {"layers": 1, "heads": 4, "hidden": 192, "dropout": 0.0} if form is Translate else {}
    return model.eval(), form(model, text=text, max_length=8, **sizes, **settings).eval()


FORMS = (Translate, TranslateMasked)


@pytest.fixture(scope="module", params=FORMS)
def built(request, text):
    return build(text, request.param)


def single(batch, row):
    """One example without the padding that its batch gave it."""
    count = int(batch.inputs.text.mask[row].sum())
    inputs = replace(batch.inputs.map(lambda one: one[row : row + 1]), more_texts=())
    short = inputs.text.map(lambda one: one[:, :count])
    return replace(batch, ids=batch.ids[row : row + 1], inputs=replace(inputs, text=short), targets=None)


def test_targets_are_tokens_and_an_end_unless_they_are_cut(text):
    task = build(text, TranslateMasked)[1]
    index = {token: number for number, token in enumerate(text.tokens)}
    examples = [Example(id=str(n), pairs=(), target=target) for n, (_, target) in enumerate(SENTENCES)]
    expected = [["Hund", "rennt", ".", "[SEP]"], ["Katze", "[SEP]"]]
    ids = task.targets(examples[:2])
    assert [[one for one in row if one >= 0] for row in ids.tolist()] == [
        [index[token] for token in row] for row in expected
    ]
    long = replace(examples[0], target="Hund " * 500)
    assert task.targets([long]).tolist() == [[index["Hund"]] * 8]
    assert task.targets([examples[0], replace(long, target=None)]) is None
    with pytest.raises(FormatError, match=r"example 7 .*\['Hund'\]"):
        task.targets([Example(id="7", pairs=(), target=["Hund"])])


@pytest.mark.parametrize("image", [None, "photo"])
@pytest.mark.parametrize("search", [Search(max_length=8), Search(beam=4, max_length=8)])
def test_a_batch_is_translated_as_each_sentence_alone(built, collate, image, search):
    model, task = built
    batch = collate(task, image=image)
    with torch.no_grad():
        together = task.generate(model, batch, search)
        alone = [task.generate(model, single(batch, row), search)[0] for row in range(len(batch))]
    assert together == alone
    assert any(together)


def test_greedy_search_takes_what_the_scores_of_training_say_is_best(built, collate, text):
    """For the decoder: what is kept from step to step equals computing the whole prefix again."""
    model, task = built
    batch = collate(task, image="photo")
    with torch.no_grad():
        found = task.generate(model, batch, Search(max_length=8))
        for row, words in enumerate(found):
            labels = torch.tensor([[*words, task.stop][:8]])
            scores, right = task.score(model, replace(single(batch, row), targets=labels))
            best = task._allowed(scores).argmax(-1)
            assert best.tolist() == right.tolist() == labels[0].tolist()


def test_the_loss_is_the_mean_over_all_tokens(built, collate):
    model, task = built
    batch = collate(task, image="photo")
    each = []
    for row in range(len(batch)):
        own = batch.target()[row]
        scores, right = task.score(model, replace(single(batch, row), targets=own[own >= 0][None]))
        each.append(torch.nn.functional.cross_entropy(scores, right, reduction="none"))
    torch.testing.assert_close(task(model, batch).loss, torch.cat(each).mean(), atol=1e-5, rtol=1e-5)
    assert task(model, replace(batch, targets=None)).loss is None


def test_the_mask_follows_the_prefix_without_a_gap(text, collate):
    model, task = build(text, TranslateMasked)
    seen = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].text))
    batch = collate(task, rows=SENTENCES[:2])
    task.score(model, batch)
    [rows] = seen
    words = [
        " ".join(text.tokens[one] for one, real in zip(*row, strict=True) if real)
        for row in zip(rows.ids.tolist(), rows.mask.tolist(), strict=True)
    ]
    assert words == [
        "[CLS] dog runs . [SEP] [MASK] [SEP]",
        "[CLS] dog runs . [SEP] Hund [MASK] [SEP]",
        "[CLS] dog runs . [SEP] Hund rennt [MASK] [SEP]",
        "[CLS] dog runs . [SEP] Hund rennt . [MASK] [SEP]",
        "[CLS] the cat [SEP] [MASK] [SEP]",
        "[CLS] the cat [SEP] Katze [MASK] [SEP]",
    ]
    assert not (rows.mask.int().diff(dim=1) > 0).any(), "padding is at the end only"
    assert not rows.segments.any()


def test_a_number_of_positions_is_drawn_anew_in_training_alone(text, collate):
    model, task = build(text, TranslateMasked, positions=1)
    batch, generator = collate(task), torch.Generator().manual_seed(0)
    assert len(task.score(model, batch, generator)[1]) == (batch.target() >= 0).sum()
    task.train()
    drawn = {tuple(task.score(model, batch, generator)[1].tolist()) for _ in range(12)}
    assert {len(one) for one in drawn} == {len(batch)}
    assert len(drawn) > 4


def test_label_smoothing_is_for_training(text, collate):
    losses = {}
    for smoothing in (0.0, 0.3):
        model, task = build(text, Translate, label_smoothing=smoothing)
        batch = collate(task)
        losses[smoothing] = [task.train(mode)(model, batch).loss.item() for mode in (True, False)]
    assert losses[0.0][0] == losses[0.0][1] == losses[0.3][1]
    assert losses[0.3][0] != pytest.approx(losses[0.3][1])


@pytest.mark.parametrize("form", FORMS)
def test_only_tokens_of_a_text_are_generated(form, text, collate):
    for special in (False, True):
        model, task = build(text, form, special=special)
        with torch.no_grad():
            task.head.bias[[text.mask_id, len(text.tokens) + 1]] = 100.0
            found = task.generate(model, collate(task), Search(max_length=3))
        assert ({one for words in found for one in words} == {text.mask_id}) is special
        assert all(one < len(text.tokens) for words in found for one in words)


@pytest.mark.parametrize("form", FORMS)
def test_a_form_learns_its_sentences_and_writes_them(form, text, collate):
    model, task = build(text, form)
    batch = collate(task)
    optimizer = torch.optim.Adam([*model.parameters(), *task.parameters()], lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        task.train()(model, batch).loss.backward()
        optimizer.step()
    task.eval()
    part = task.validate(model, batch)
    assert part.result.texts == tuple(target for _, target in SENTENCES)
    gold = {str(number): target for number, (_, target) in enumerate(SENTENCES)}
    assert task.summarize([part], gold)["chrf"] == pytest.approx(100)
    with torch.autocast("cpu", torch.bfloat16):
        assert task.predict(model, batch).texts == part.result.texts


@pytest.mark.parametrize("form", FORMS)
def test_regions_count_and_only_if_there_are_any(form, text, collate):
    model, task = build(text, form)
    with torch.no_grad():
        losses = [task(model, collate(task, image=image)).loss.item() for image in (None, "a", "other")]
    assert len({round(loss, 4) for loss in losses}) == 3
    task(model, collate(task, image="a")).loss.backward()
    assert model.regions.project.weight.grad.any()


def test_a_long_source_is_cut_and_translated(built, collate):
    model, task = built
    batch = collate(task, rows=[("dog " * 500, "Hund"), *SENTENCES])
    assert batch.inputs.text.ids.shape[1] == 12
    assert len(task.predict(model, batch).texts) == 5


@pytest.mark.parametrize("form", FORMS)
def test_settings_out_of_range_are_refused(form, text):
    size = len(text.tokens)
    for settings, told in (
        ({"beam": size + 1}, f"{size + 1} .*{size}"),
        ({"stop": "[STOP]"}, r"\[STOP\]"),
        ({"label_smoothing": 1}, "1"),
    ):
        with pytest.raises(ConfigError, match=told):
            build(text, form, **settings)
    task = build(text, form, beam=size)[1]
    with pytest.raises(ConfigError, match=f"{size + 1} .*{size}"):
        task.search = Search(beam=size + 1)


@pytest.mark.parametrize("form", FORMS)
def test_a_bundle_holds_the_vocabulary_once_and_translates_alike(form, vocabulary, collate, tmp_path):
    words = {"_target_": "diptych.text.WordPiece", "vocabulary": str(vocabulary), "lowercase": False}
    sizes = {"layers": 1, "heads": 4, "hidden": 192} if form is Translate else {}
    nodes = {
        "model": {
            "_target_": "diptych.models.vlbert_tiny",
            "vocab_size": len(SPECIAL + WORDS),
            "feature_dim": 4,
            "box_dim": 8,
        },
        "processor": {"_target_": "diptych.data.Processor", "text": words, "regions": True},
        "task": {"_target_": f"diptych.tasks.{form.__name__}", "text": words, "max_length": 8, **sizes},
    }
    torch.manual_seed(1)
    model = call(nodes["model"]).eval()
    task = call(nodes["task"], model=model).eval()
    save_bundle(tmp_path / "bundle", model=model, task=task, nodes=nodes)
    assert [path.name for path in (tmp_path / "bundle" / "files").iterdir()] == ["vocabulary.txt"]
    loaded = load_bundle((tmp_path / "bundle").rename(tmp_path / "moved"))
    batch = collate(task, image="photo")
    with torch.no_grad():
        assert loaded.task.predict(loaded.model, batch).texts == task.predict(model, batch).texts
