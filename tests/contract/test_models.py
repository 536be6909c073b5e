"""What every model promises. A builder is tested by being exported."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from diptych import models
from diptych.bundle import load_bundle, save_bundle
from diptych.errors import ConfigError
from diptych.nn import ClassifierHead, attention_places, capture_attention, checkpointed
from diptych.recipe.call import call
from diptych.types import EVERYTHING, Encoding, Inputs, PaddedRegions, PaddedText

BUILDERS = [name for name in models.__all__ if name[0].islower()]
TINY = [name for name in BUILDERS if name.endswith("_tiny")]
LARGE = [name for name in BUILDERS if name not in TINY]
SIZES = {
    # The originals without heads, less the row of their mask table that is always zero.
    "uniter_base": 109_898_752 - 2048,
    "uniter_large": 335_695_872 - 2048,
    # bert-base- and bert-large-uncased, and the projection of regions.
    "oscar_base": 109_482_240 + 2054 * 768 + 768,
    "oscar_large": 335_141_888 + 2054 * 1024 + 1024,
    # bert-base-uncased, two tables and the projection of the regions.
    "visualbert_base": 109_482_240 + 512 * 768 + 2 * 768 + 2048 * 768 + 768,
    # bert-base- and bert-large-uncased with a third segment, regions, four vectors and two LayerNorms.
    "vlbert_base": 109_482_240 + 768 + (4096 * 768 + 768 + 2048) + 4 * 768 + 4 * 768,
    "vlbert_large": 335_141_888 + 1024 + (4096 * 1024 + 1024 + 2048) + 4 * 1024 + 4 * 1024,
    # the same with the words of bert-base-multilingual-cased
    "mmbert_base": 109_482_240 + (119_547 - 30_522) * 768 + 768 + (4096 * 768 + 768 + 2048) + 8 * 768,
    "lxmert_base": 207_936_768,  # the released file without heads
    # bert.* of the published files, without task tokens and what the original never uses.
    "vilbert_base": 235_705_856,
    "devlbert_base": 235_705_856,
    # the parameter lists of the originals, less the head
    "ernievil_base": 235_707_392,
    "ernievil_large": 565_031_936,
    # ResNet-152 without fc, and three Linears.
    "concat_fasttext": 58_143_808 + 150 * 300 + 300 + 2048 * 300 + 300 + 600 * 256 + 256,
    # bert-base-uncased, ResNet-101 with fc, and three Linears.
    "concat_bert": 109_482_240 + 44_549_160 + 768 * 128 + 128 + 1000 * 128 + 128 + 256 * 128 + 128,
    # all-MiniLM-L6-v2 without its pooler, the image network without its classifier, and three Linears
    "concat_minilm_efficientnet": 22_713_216 - 147_840 + 4_652_008 - 1_281_000 + (385 + 1281 + 513) * 256,
    "concat_minilm_mobilenet": 22_713_216 - 147_840 + 3_504_872 - 1_281_000 + (385 + 1281 + 513) * 256,
    # the released files, without the counters of sizes
    "clip_b32": 151_277_313,
    "clip_b16": 149_620_737,
    "clip_l14": 427_616_513,
    "clip_l14_336": 427_944_193,
    "siglip_b16": 203_155_970,
    "siglip_so400m": 877_960_498,
    "siglip2_b16": 375_187_970,
    "siglip2_so400m": 877_960_498 + (256_000 - 32_000) * 1152,
    "text_fasttext": 150 * 300 + 300,
    "text_bert": 109_482_240 + 768 * 128 + 128,
    "image_resnet": 44_549_160 + 1000 * 256 + 256,
}
UNREAD = {name for name, _ in models.lxmert_tiny().cross_layers[-1].regions.named_parameters()}
NO_GRADIENT: dict[str, set[str]] = {
    # Nobody here reads the last region states; the one segment in use is never trained, as in the original.
    "lxmert_tiny": {"text.segments.weight", *(f"cross_layers.1.regions.{name}" for name in UNREAD)},
    # They scale the cosines of all pairs, which only contrastive objectives read.
    "clip_tiny": {"logit_scale"},
    "siglip_tiny": {"logit_scale", "logit_bias"},
    "uniter_tiny": {"regions.hidden"},  # trained by pre-training only
    "vlbert_tiny": {"regions.hidden", "hidden_word", "blank"},  # by pre-training and rows without regions
}


PAIRS = [name for name in TINY if {"text", "regions"} <= getattr(models, name)().needs]
FIELDS = sorted(one for one in EVERYTHING if not one.startswith("tower_"))  # no region model has towers
READS = [frozenset(some) for count in (1, 2) for some in combinations(FIELDS, count)]
POOLED = frozenset({"pooled"})
RATES = {"oscar_tiny": 2e-3, "uniter_tiny": 2e-3, "visualbert_tiny": 2e-3}  # without a saddle on the way


def inputs(model, *, lengths=(5, 3, 7), counts=(4, 2, 1), extra=0, seed=0, width=64) -> Inputs:
    """Random rows for whatever the model needs; `extra` more positions of padding, filled with noise."""
    generator = torch.Generator().manual_seed(seed)
    rows, needs, parts = len(lengths), model.needs, {}
    long, many = max(lengths), max(counts)

    def pad(real: Tensor) -> Tensor:
        noise = torch.rand(rows, extra, *real.shape[2:], generator=torch.Generator().manual_seed(99))
        return torch.cat([real, (noise * 9).to(real.dtype)], 1)

    if "text" in needs:
        ids = torch.randint(1, 99, (rows, long), generator=generator)
        mask = torch.arange(long + extra) < torch.tensor(lengths)[:, None]
        segments = torch.zeros(rows, long + extra, dtype=torch.int64)
        parts["text"] = PaddedText(ids=pad(ids), mask=mask, segments=segments)
    if "regions" in needs:
        corners = torch.rand(rows, many, 4, generator=generator).sort(-1).values[..., [0, 1, 2, 3]]
        parts["regions"] = PaddedRegions(
            features=pad(torch.randn(rows, many, width, generator=generator)),
            boxes=pad(corners),
            mask=torch.arange(many + extra) < torch.tensor(counts)[:, None],
            image_index=torch.zeros(rows, many + extra, dtype=torch.int64),
            sizes=torch.full((rows, 2), 100.0),
        )
    if "vectors" in needs:
        parts["vectors"] = torch.randn(rows, 150, generator=generator)
    if "pixels" in needs:
        parts["pixels"] = torch.randn(rows, 3, 40, 40, generator=generator)
    return Inputs(**parts)


def build(name) -> nn.Module:
    torch.manual_seed(0)
    return getattr(models, name)().eval()


def without_regions(given: Inputs) -> Inputs:
    """The same rows with room for no region at all."""
    none = given.regions.map(lambda tensor: tensor if tensor.shape[1:] == (2,) else tensor[:, :0])
    return replace(given, regions=none)


def assert_same(got: Encoding, expected: Encoding, given: Inputs, **tolerance) -> None:
    """Equal wherever the rows of `given` are real."""
    torch.testing.assert_close(got.pooled, expected.pooled, **tolerance)
    for states, others, part in (
        (got.text, expected.text, given.text),
        (got.regions, expected.regions, given.regions),
    ):
        assert (states is None) == (others is None)
        if states is not None:
            width = part.mask.shape[1]
            torch.testing.assert_close(
                states[:, :width][part.mask], others[:, :width][part.mask], **tolerance
            )


def test_every_large_builder_has_a_counted_size():
    assert set(LARGE) == set(SIZES)


@pytest.mark.parametrize("name", LARGE)
def test_published_size(name):
    with torch.device("meta"):
        model = getattr(models, name)()
    assert sum(one.numel() for one in model.parameters()) == SIZES[name]


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_has_a_docstring_and_says_what_it_needs(name):
    with torch.device("meta"):
        model = getattr(models, name)()
    assert getattr(models, name).__doc__
    assert model.needs
    assert model.needs <= {"text", "regions", "pixels", "vectors", "mentions", "labels"}
    words = model.word_embedding()
    assert (words is not None) == ("text" in model.needs)


@pytest.mark.parametrize("name", BUILDERS)
def test_forward_gives_the_widths_it_names(name):
    """Of large models the shapes alone, without memory."""
    with torch.device("meta" if name in LARGE else "cpu"):
        model = build(name)
    given = inputs(model, width=getattr(model, "feature_dim", 0)).to(next(model.parameters()).device)
    encoding = model(given)
    assert encoding.pooled.shape == (3, model.dim)
    assert name in LARGE or encoding.pooled.isfinite().all()
    for states, width, part in (
        (encoding.text, model.text_dim, given.text),
        (encoding.regions, model.region_dim, given.regions),
    ):
        assert (states is not None) == (width > 0)
        if states is not None:
            assert states.shape == (*part.mask.shape, width)


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_gets_a_gradient(name):
    model = build(name).train()
    encoding = model(inputs(model))
    (encoding.pooled * torch.randn_like(encoding.pooled)).sum().backward()
    without = {key for key, one in model.named_parameters() if one.grad is None or not one.grad.any()}
    # A key's bias shifts all scores of a query alike, which softmax does not see.
    unseen = {key for key in without | NO_GRADIENT.get(name, set()) if key.endswith("attention.key.bias")}
    assert without - unseen == NO_GRADIENT.get(name, set()) - unseen


@pytest.mark.parametrize("name", TINY)
def test_padding_never_changes_a_result(name):
    model = build(name)
    given = inputs(model)
    assert_same(model(inputs(model, extra=3)), model(given), given, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_batch_of_one_equals_row_of_a_batch(name):
    model = build(name)
    given = inputs(model)
    for row in range(3):
        alone = given.map(lambda tensor, row=row: tensor[row : row + 1])
        together = model(given)
        mine = Encoding(
            pooled=together.pooled[row : row + 1],
            text=None if together.text is None else together.text[row : row + 1],
            regions=None if together.regions is None else together.regions[row : row + 1],
        )
        assert_same(model(alone), mine, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_permuting_regions_permutes_their_states_only(name):
    model = build(name)
    given = inputs(model, counts=(4, 4, 4))
    order = torch.tensor([2, 0, 3, 1])
    regions = given.regions.map(lambda tensor: tensor if tensor.shape[1] == 2 else tensor[:, order])
    before, after = model(given), model(Inputs(text=given.text, regions=regions))
    torch.testing.assert_close(after.pooled, before.pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.regions, before.regions[:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_rows_without_any_region_are_text_only(name):
    model = build(name)
    full = inputs(model, counts=(4, 0, 1))
    encoding = model(full)
    assert encoding.pooled.isfinite().all()
    assert encoding.text.isfinite().all()
    alone = model(without_regions(full))
    torch.testing.assert_close(alone.pooled[1], encoding.pooled[1], atol=1e-5, rtol=1e-5)


# Every text of SigLIP has its full length, which no place of a row describes.
MAPPED = [name for name in TINY if "text" in getattr(models, name)().needs and name != "siglip_tiny"]


@pytest.mark.parametrize("name", MAPPED)
def test_attention_maps_are_over_the_places_that_the_model_states(name):
    """Every row of every map sums to 1 over real keys and has nothing on padding."""
    model = build(name)
    given, plan = inputs(model, extra=2), attention_places(model)
    real = {"text": given.text.mask, "regions": given.text.mask[:, :0]}
    real["text"] = F.pad(real["text"], (len(plan.after_first), 0), value=True)
    if given.regions is not None:
        ends = len(plan.before_regions), len(plan.after_regions)
        real["regions"] = F.pad(given.regions.mask, ends, value=True)
    real["both"] = torch.cat([real["text"], real["regions"]], 1)
    with capture_attention(model) as maps:
        model(given)
    assert len(maps) >= 2
    for key, weights in maps.items():
        if not plan.describes(key):  # over patches, which are no places of the row
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
            continue
        queries, keys = (real[side] for side in plan.sides_of(key))
        assert weights.shape == (3, 4, queries.shape[1], keys.shape[1]), key
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
        if name == "clip_tiny":  # causal and without a mask: only padding itself looks at padding
            weights = weights.masked_fill(~queries[:, None, :, None], 0)
        assert not weights.masked_fill(keys[:, None, None], 0).any(), key


@pytest.mark.parametrize("name", TINY)
def test_same_seed_same_model_same_numbers(name):
    one, other = build(name), build(name)
    given = inputs(one)
    assert torch.equal(one(given).pooled, other(given).pooled)
    torch.manual_seed(3)
    first = one.train()(given).pooled
    torch.manual_seed(3)
    assert torch.equal(other.train()(given).pooled, first)


@pytest.mark.parametrize("name", TINY)
def test_bfloat16_stays_close(name):
    model = build(name)
    given = inputs(model)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(given).pooled.float()
    exact = model(given).pooled
    assert (rough - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("reads", READS, ids=lambda some: "+".join(sorted(some)))
def test_reading_less_changes_no_number(name, reads):
    model = build(name)
    given = inputs(model)
    full, part = model(given), model(given, reads=reads)
    expected = replace(full, **dict.fromkeys(EVERYTHING - reads))
    kept = replace(part, **dict.fromkeys(EVERYTHING - reads))
    for one, other, real in (
        (kept.pooled, expected.pooled, slice(None)),
        (kept.text, expected.text, given.text.mask),
        (kept.regions, expected.regions, given.regions.mask),
    ):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one[real], other[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_reading_less_changes_no_gradient(name):
    model = build(name)
    given, found = inputs(model), []
    for reads in (EVERYTHING, POOLED):
        model.zero_grad()
        model(given, reads=reads).pooled.square().sum().backward()
        found.append([one.grad for one in model.parameters()])
    for full, part in zip(*found, strict=True):
        assert (full is None) == (part is None)
        if full is not None:
            torch.testing.assert_close(part, full, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_reading_less_computes_less(name):
    model = build(name)
    given, seen = inputs(model), []
    for part in model.modules():
        if isinstance(part, nn.Linear):
            part.register_forward_hook(lambda module, given, result: seen.append(result.numel()))
    counts = []
    for reads in (POOLED, EVERYTHING):
        model(given, reads=reads)
        counts.append(sum(seen))
        seen.clear()
    assert counts[0] < 0.95 * counts[1]


@pytest.mark.parametrize("name", TINY)
def test_activation_checkpointing_changes_no_gradient(name):
    model = build(name).train()
    given, found = inputs(model), []

    def step():
        model.zero_grad()
        torch.manual_seed(1)
        loss = model(given, reads=POOLED).pooled.square().sum()
        loss.backward()
        found.append([loss.detach(), *(one.grad for one in model.parameters() if one.grad is not None)])

    step()
    with checkpointed(model):
        step()
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("name", TINY)
def test_what_is_missing_is_named_or_missed_by_nobody(name):
    """Without one of its modalities a model says so, or does as with a picture without any region."""
    model = build(name)
    given = inputs(model)
    for need in model.needs:
        lacking, message = replace(given, **{need: None}), ""
        try:
            alone = model(lacking).pooled
        except ConfigError as error:
            message = str(error)
        if message:
            assert f" {need}," in message, message
        else:
            assert need == "regions"
            torch.testing.assert_close(alone, model(without_regions(given)).pooled)


@pytest.mark.parametrize("name", PAIRS)
def test_features_of_another_width_are_refused(name):
    model = build(name)
    with pytest.raises(ConfigError, match=r" 64; .* 50\. .*model\.feature_dim"):
        model(inputs(model, width=50))


@pytest.mark.parametrize("name", TINY)
def test_a_bundle_goes_around(name, tmp_path):
    nodes = {
        "model": {"_target_": f"diptych.models.{name}"},
        "processor": {"_target_": "diptych.data.Processor"},
        "task": {"_target_": "diptych.tasks.Classify", "labels": ["benign", "hateful"]},
    }
    torch.manual_seed(0)
    model = call(nodes["model"]).eval()
    task = call(nodes["task"], model=model).eval()
    save_bundle(tmp_path / "bundle", model=model, task=task, nodes=nodes)
    given, loaded = inputs(model), load_bundle(tmp_path / "bundle")
    assert_same(loaded.model(given), model(given), given, atol=0, rtol=0)
    assert torch.equal(loaded.task.head(model(given).pooled), task.head(model(given).pooled))


SLOW = ("devlbert_tiny", "ernievil_tiny", "lxmert_tiny", "vilbert_tiny")  # two streams: 5 to 20 s


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in PAIRS]
)
def test_learns_what_only_both_modalities_tell(name):
    """One of 8 words and one of 8 pictures, of two families each: the label is whether the families agree."""
    torch.manual_seed(0)
    model, head, kinds = getattr(models, name)(), ClassifierHead(48, 2), torch.randn(8, 64)

    def memes(count):
        given = inputs(model, lengths=(5,) * count, counts=(2,) * count, seed=count)
        text, image = torch.randint(8, (2, count))
        given.text.ids[:, 3] = 100 + text
        given.regions.features.mul_(0.5)[:, 0] += kinds[image]
        return given, ((text < 4) == (image < 4)).long()

    (train, labels), (test, answers) = memes(1024), memes(256)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=RATES.get(name, 5e-4))
    right = 0.0
    for _ in range(16):
        if right > 0.95:
            return
        for index in torch.randperm(1024).split(32):
            batch = train.map(lambda tensor, index=index: tensor[index])
            optimizer.zero_grad()
            F.cross_entropy(head(model(batch, reads=POOLED).pooled), labels[index]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        with torch.no_grad():
            chosen = head(model(test, reads=POOLED).pooled).argmax(1)
        right = float((chosen == answers).float().mean())
    pytest.fail(f"only {right:.0%} are right")


@pytest.mark.compile
@pytest.mark.parametrize("name", TINY)
def test_compiles_as_one_graph(name):
    torch.compiler.reset()
    model = build(name)
    given = inputs(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    got, expected = (pytree.tree_leaves(one(given, POOLED)) for one in (compiled, model))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
