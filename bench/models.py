"""Forward passes against the padding, the library and the memory layout that others use."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from bench._timing import in_turns
from torch import Tensor
from torch.nn import functional as F

from diptych.convert.bert import fill_bert
from diptych.models import uniter_base
from diptych.models.concat import BertTower
from diptych.nn import ClassifierHead, ResNet, resnet50, resnet_tiny
from diptych.types import Inputs, PaddedRegions, PaddedText

Row = tuple[str, str, str, str]
# Word pieces of eight memes: DrivenData's statistics of words per text (quartiles 7, 10 and 15), plus a third
# for word pieces, plus two special tokens.
LENGTHS = (7, 11, 13, 15, 17, 20, 25, 36)
REGIONS = 36


def rows() -> Iterator[Row]:
    """What was measured, ours, the other way, and how many times faster ours is."""
    torch.manual_seed(0)
    yield padding()
    yield from bert()
    yield from layouts()


def padding() -> Row:
    """The same numbers from rows padded to the longest text, or to 128 tokens as Vilio's Oscar does."""
    model = uniter_base().eval()
    dynamic, fixed = (Inputs(text=text(length), regions=regions()) for length in (max(LENGTHS), 128))
    with torch.inference_mode():
        torch.testing.assert_close(model(dynamic).pooled, model(fixed).pooled, atol=2e-5, rtol=1e-3)
        return compared(
            f"UNITER-base forward, {len(LENGTHS)} memes with {REGIONS} regions",
            lambda: model(dynamic),
            "padded to 128 tokens",
            lambda: model(fixed),
        )


def text(length: int) -> PaddedText:
    """The same tokens, padded to `length`."""
    mask = torch.arange(length) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(1, 1000, (len(LENGTHS), 128), generator=torch.Generator().manual_seed(0))
    ids = ids[:, :length] * mask
    return PaddedText(ids=ids, mask=mask, segments=torch.zeros_like(ids))


def regions() -> PaddedRegions:
    shape, generator = (len(LENGTHS), REGIONS), torch.Generator().manual_seed(0)
    return PaddedRegions(
        features=torch.randn(*shape, 2048, generator=generator),
        boxes=torch.rand(*shape, 4, generator=generator),
        mask=torch.ones(shape, dtype=torch.bool),
        image_index=torch.zeros(shape, dtype=torch.int64),
        sizes=torch.ones(len(LENGTHS), 2),
    )


def bert() -> Iterator[Row]:
    """Our BERT and transformers' with the same weights."""
    what = "BERT-base forward, 8 memes"
    try:
        from transformers import BertConfig, BertModel
    except ImportError:
        yield what, "", "transformers is not installed", ""
        return
    given = text(max(LENGTHS))
    sizes = {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    }
    tiny = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192}
    for name, numbers in ((what, sizes), ("BERT-tiny forward, 8 memes", tiny)):
        peer = BertModel(BertConfig(vocab_size=1000, attn_implementation="sdpa", **numbers)).eval()
        tower = BertTower(
            128,
            vocab_size=1000,
            width=numbers["hidden_size"],
            heads=numbers["num_attention_heads"],
            hidden=numbers["intermediate_size"],
            layers=numbers["num_hidden_layers"],
        ).eval()
        fill_bert(tower, peer.state_dict(), where="transformers")
        mask = given.mask.long()
        with torch.inference_mode():
            yield compared(
                name,
                lambda tower=tower: tower.pool(tower.encoder(tower.text(given), given.mask)),
                "transformers",
                lambda peer=peer, mask=mask: peer(given.ids, mask, given.segments).pooler_output,
            )


def layouts() -> Iterator[Row]:
    """ResNets with channels last, as ours run, and with channels first."""
    large, small = resnet50(classes=None).eval(), resnet_tiny()
    pictures = torch.randn(4, 3, 224, 224)
    with torch.inference_mode():
        yield compared(
            "ResNet-50 forward, 4 pictures of 224 pixels",
            lambda: large(pictures),
            "channels first",
            lambda: channels_first(large, pictures),
        )
    head, little, labels = ClassifierHead(small.dim, 2), torch.randn(32, 3, 112, 112), torch.zeros(32).long()

    def step(forward: Callable[[Tensor], Tensor]) -> None:
        F.cross_entropy(head(forward(little)), labels).backward()

    yield compared(
        "ResNet-tiny forward and backward, 32 pictures of 112 pixels",
        lambda: step(small),
        "channels first",
        lambda: step(lambda x: channels_first(small, x)),
    )


def channels_first(model: ResNet, pixels: Tensor) -> Tensor:
    x = model.pool(F.relu(model.bn1(model.conv1(pixels))))
    x = model.layer4(model.layer3(model.layer2(model.layer1(x))))
    return x.mean((2, 3))


def compared(what: str, ours: Callable[[], Any], name: str, other: Callable[[], Any]) -> Row:
    fast, slow = in_turns(ours, other)
    return what, f"{1e3 * fast:.1f} ms", f"{name} {1e3 * slow:.1f} ms", f"{slow / fast:.1f}x"
