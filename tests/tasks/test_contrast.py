"""Contrastive pre-training."""

import multiprocessing
import warnings
from functools import partial

import pytest
import torch
from torch import distributed
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.models import clip_tiny, siglip_tiny, uniter_tiny
from diptych.tasks import Pretrain
from diptych.tasks.objectives import Contrast, Sample
from diptych.types import Batch, Encoding, Inputs, PaddedText

MODELS = {"softmax": clip_tiny, "sigmoid": siglip_tiny}


def vectors(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pair = torch.randn(2, count, 48, generator=generator).requires_grad_()
    return pair, F.normalize(pair, dim=-1)


def losses(model, kind, rows):
    encoding = Encoding(joint_image=rows[0], joint_text=rows[1])
    objective = Contrast(model, loss=kind).train()
    return objective(model, encoding, Sample(inputs=Inputs(pixels=torch.zeros(len(rows[0]), 3, 1, 1))))


@pytest.mark.parametrize("kind", MODELS)
def test_the_loss_is_the_formula(kind):
    model, (_, rows) = MODELS[kind](), vectors(4)
    logits = model.compare(*rows)
    right = torch.arange(4)
    if kind == "softmax":
        expected = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    else:
        expected = F.binary_cross_entropy_with_logits(logits, torch.eye(4), reduction="sum") / 4
    torch.testing.assert_close(losses(model, kind, rows)["contrast"], expected)


def _rank(rank, file, kind, queue):
    warnings.simplefilter("ignore")
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model, (leaves, rows) = MODELS[kind](), vectors(5)
    own = slice(0, 3) if rank == 0 else slice(3, 5)  # batches of different sizes
    loss = losses(model, kind, rows[:, own])["contrast"]
    loss.backward()
    queue.put((rank, loss.item(), leaves.grad.numpy(), float(model.logit_scale.grad)))
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize("kind", MODELS)
def test_processes_compare_with_the_rows_of_all(kind, tmp_path):
    """Weighed by their rows, the losses and gradients of two processes are those of one with all rows."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    started = [
        context.Process(target=_rank, args=(rank, tmp_path / "meet", kind, queue)) for rank in range(2)
    ]
    for process in started:
        process.start()
    found = sorted((queue.get() for _ in started), key=lambda one: one[0])
    for process in started:
        process.join(30)
    torch.manual_seed(0)
    model, (_, rows) = MODELS[kind](), vectors(5)
    whole = losses(model, kind, rows)["contrast"]
    assert (3 * found[0][1] + 2 * found[1][1]) / 5 == pytest.approx(whole.item(), rel=1e-5)
    whole.backward()
    scale = (3 * found[0][3] + 2 * found[1][3]) / 5
    assert scale == pytest.approx(float(model.logit_scale.grad), rel=1e-4)
    # Rows of the other process get gradients, too: their vectors are this one's negatives.
    assert abs(found[0][2][:, :3]).sum() > 0
    assert abs(found[1][2][:, 3:]).sum() > 0


def test_a_small_clip_learns_its_pairs():
    torch.manual_seed(0)
    model = clip_tiny()
    task = Pretrain(model, objectives={"contrast": partial(Contrast, loss="softmax")}).train()
    ids = torch.arange(5, 37).reshape(8, 4)
    text = PaddedText(ids=ids, mask=torch.ones_like(ids).bool(), segments=torch.zeros_like(ids))
    batch = Batch(ids=tuple("abcdefgh"), inputs=Inputs(text=text, pixels=torch.randn(8, 3, 24, 24)))
    optimizer = torch.optim.AdamW([*model.parameters(), *task.parameters()], lr=2e-3)
    for _ in range(25):
        optimizer.zero_grad()
        loss = task(model, batch).loss
        loss.backward()
        optimizer.step()
    assert loss < 0.3
    part = task.eval().validate(model.eval(), batch)
    assert task.summarize([part], {})["contrast.accuracy"] == 1


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ConfigError, match="Uniter"):
        Contrast(uniter_tiny())
    with pytest.raises(ConfigError, match="'triplet'"):
        Contrast(clip_tiny(), loss="triplet")
