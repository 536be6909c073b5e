import pytest
import torch
from torch.nn import functional as F

from diptych.data import Processor
from diptych.errors import ConfigError
from diptych.models import clip_tiny, uniter_tiny
from diptych.nn import JointImage, PromptHead
from diptych.recipe.heads import with_prompts
from diptych.tasks import Classify
from diptych.text import WordPiece, write_vocabulary
from diptych.text.tokenizer import SPECIAL_TOKENS
from diptych.types import Batch, Inputs, PaddedText

PROMPTS = {"benign": ["one", "two"], "hateful": ["three"]}
TOKENS = [[[2, 11, 3], [2, 12, 13, 3]], [[2, 14, 3]]]
BEGUN = frozenset({"joint_text"})


def zero_shot():
    torch.manual_seed(0)
    model = clip_tiny().eval()
    head = lambda dim, classes: PromptHead(dim, classes, prompts=PROMPTS, tokens=TOKENS)  # noqa: E731
    task = Classify(model, labels=list(PROMPTS), readout=JointImage, head=head).eval()
    task.begin(model)
    return model, task


def vector(model, ids):
    ids = torch.tensor([ids])
    text = PaddedText(ids=ids, mask=torch.ones_like(ids).bool(), segments=torch.zeros_like(ids))
    return model(Inputs(text=text), BEGUN).joint_text[0]


def test_scores_are_cosines_with_the_mean_of_the_prompts():
    model, task = zero_shot()
    pixels = torch.randn(2, 3, 24, 24)
    batch = Batch(ids=("a", "b"), inputs=Inputs(pixels=pixels))  # a picture is enough
    logits = task(model, batch).logits
    image = model(batch.inputs, frozenset({"joint_image"})).joint_image
    benign = F.normalize(vector(model, TOKENS[0][0]) + vector(model, TOKENS[0][1]), dim=0)
    classes = torch.stack([benign, vector(model, TOKENS[1][0])])
    torch.testing.assert_close(logits, model.logit_scale.exp() * image @ classes.T)
    assert task.decode(logits, batch).classes == ("benign", "hateful")


def test_a_run_tokenizes_the_prompts_in_the_order_of_the_labels(tmp_path):
    write_vocabulary(tmp_path / "vocab.txt", [*SPECIAL_TOKENS, "one", "two"])
    processor = Processor(text=WordPiece(tmp_path / "vocab.txt"), max_tokens=9)
    head = {"_target_": "diptych.nn.PromptHead", "prompts": {"b": ["two"], "a": ["one", "one two"]}}
    done = with_prompts({"labels": ["a", "b"], "head": head}, processor)["head"]
    assert done["tokens"] == [[[2, 5, 3], [2, 5, 6, 3]], [[2, 6, 3]]]
    assert list(done["prompts"]) == ["a", "b"]
    with pytest.raises(ConfigError, match="'c'"):
        with_prompts({"labels": ["a", "c"], "head": head}, processor)


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="Uniter"):
        JointImage(uniter_tiny())
    with pytest.raises(ConfigError, match="2 labels"):
        PromptHead(4, 2, prompts={"benign": ["one"]})
    with pytest.raises(ConfigError, match="tokens"):
        PromptHead(48, 2, prompts=PROMPTS).begin(clip_tiny())
