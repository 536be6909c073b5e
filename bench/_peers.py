"""Models of ours and of transformers with the same weights and the same batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diptych.convert import fill_model
from diptych.convert.bert import fill_bert
from diptych.models import Lxmert, VisualBert
from diptych.models.concat import BertTower
from diptych.nn.modalities import require, require_both
from diptych.types import Inputs

POOLED = frozenset({"pooled"})
WORDS = 1000


@dataclass(frozen=True, kw_only=True)
class Peers:
    """Two models and what each makes of the same batch: the pooled vector, with autograd as one likes.

    Args:
        shape: what is compared, in words.
    """

    shape: str
    model: nn.Module
    peer: nn.Module
    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]


def peers(given: Inputs) -> Iterator[Peers]:
    """Of base width, but fewer layers, in training mode without dropout."""
    yield bert(given, 4)
    yield visualbert(given, 4)
    yield lxmert(given)


def bert(given: Inputs, layers: int, *, width: int = 768, heads: int = 12) -> Peers:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width}
    peer = BertModel(_config(BertConfig, num_hidden_layers=layers, **sizes))
    model = BertTower(
        128,
        vocab_size=WORDS,
        width=width,
        heads=heads,
        hidden=4 * width,
        layers=layers,
        bert_dropout=0.0,
    )
    fill_bert(model, peer.state_dict(), where="transformers")
    text = require(model, "text", given.text)
    mask = text.mask.long()
    return Peers(
        shape=f"BERT, {layers} layers of width {width}",
        model=model,
        peer=peer,
        ours=lambda: model.pool(model.encoder(model.text(text), text.mask, slice(1))),
        theirs=lambda: peer(text.ids, mask, text.segments).pooler_output,
    )


def visualbert(given: Inputs, layers: int) -> Peers:
    from transformers import VisualBertConfig, VisualBertModel

    peer = VisualBertModel(_config(VisualBertConfig, num_hidden_layers=layers, visual_embedding_dim=2048))
    model = VisualBert(vocab_size=WORDS, layers=layers, region_segment=1, dropout=0.0, attention_dropout=0.0)
    fill_model(model, peer.state_dict(), where="transformers")
    text, regions = require_both(model, given, feature_dim=2048)
    arguments = {
        "input_ids": text.ids,
        "attention_mask": text.mask.long(),
        "token_type_ids": text.segments,
        "visual_embeds": regions.features,
        "visual_attention_mask": regions.mask.long(),
        "visual_token_type_ids": torch.ones_like(regions.image_index),
    }
    return Peers(
        shape=f"VisualBERT, {layers} layers of width 768",
        model=model,
        peer=peer,
        ours=lambda: model(given, reads=POOLED).pooled,
        theirs=lambda: peer(**arguments).pooler_output,
    )


def lxmert(*given: Inputs, depth: tuple[int, int, int] = (3, 2, 2), padded: Sequence[Inputs] = ()) -> Peers:
    """Both LXMERTs, on one batch or several.

    Args:
        depth: layers of the text, of the regions, and of both.
        padded: what transformers' model reads; nothing means the same as ours.
    """
    from transformers import LxmertConfig, LxmertModel

    words, seen, both = depth
    peer = LxmertModel(_config(LxmertConfig, l_layers=words, r_layers=seen, x_layers=both))
    model = Lxmert(
        vocab_size=WORDS,
        layers=words,
        region_layers=seen,
        cross_layers=both,
        dropout=0.0,
        attention_dropout=0.0,
    )
    fill_model(model, peer.state_dict(), where="transformers")
    sides = [require_both(model, one, feature_dim=2048) for one in padded or given]
    arguments = [
        {
            "input_ids": text.ids,
            "attention_mask": text.mask.long(),
            "token_type_ids": text.segments,
            "visual_feats": regions.features,
            "visual_pos": regions.boxes,
            "visual_attention_mask": regions.mask.long(),
        }
        for text, regions in sides
    ]
    return Peers(
        shape=f"LXMERT, {words} + {seen} + {both} layers of width 768",
        model=model,
        peer=peer,
        ours=lambda: torch.cat([model(one, reads=POOLED).pooled for one in given]),
        theirs=lambda: torch.cat([peer(**one).pooled_output for one in arguments]),
    )


def _config(kind: Callable[..., object], **sizes: int) -> object:
    return kind(vocab_size=WORDS, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **sizes)
