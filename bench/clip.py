"""CLIP's towers against transformers' with the same weights, each as it is called for a batch of memes.

Times are of the processor: other work on the machine disturbs them least.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from bench._timing import in_turns, promise
from torch import Tensor
from torch.nn import functional as F

from diptych.convert import fill_model
from diptych.models import Clip, clip_b32
from diptych.nn import Sizes
from diptych.types import PaddedText

Row = tuple[str, ...]
# Tokens of eight memes as in `bench.models`; CLIP's vocabulary cuts words about as often as BERT's.
LENGTHS = (7, 11, 13, 15, 17, 20, 25, 36)
LAYERS = 12  # of each tower


def rows() -> Iterator[Row]:
    """What was measured, ours, the other way, and how many times faster ours is."""
    try:
        from transformers import CLIPConfig, CLIPModel
    except ImportError:
        yield "CLIP ViT-B/32", "", "transformers is not installed", ""
        return
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={"num_hidden_layers": LAYERS, "vocab_size": 1000, "eos_token_id": 999},
        vision_config={"num_hidden_layers": LAYERS},
    )
    config._attn_implementation = "sdpa"
    peer = CLIPModel(config).eval()
    model = clip_b32(
        vocab_size=1000,
        text=Sizes(dim=512, heads=8, hidden=2048, layers=LAYERS),
        vision=Sizes(dim=768, heads=12, hidden=3072, layers=LAYERS),
    ).eval()
    fill_model(model, peer.state_dict(), where="transformers")
    for dtype in (torch.float32, torch.bfloat16):
        yield from towers(model, peer, dtype)


def towers(model: Clip, peer: torch.nn.Module, dtype: torch.dtype) -> Iterator[Row]:
    """Image and text tower, to the joint vectors; text at equal shapes, and as long as the memes are."""
    pixels = torch.randn(8, 3, 224, 224)
    ids, mask = texts(max(LENGTHS))
    wide, wide_mask = texts(77)
    text = PaddedText(ids=ids, mask=mask, segments=torch.zeros_like(ids))
    full = PaddedText(ids=wide, mask=wide_mask, segments=torch.zeros_like(wide))
    with torch.inference_mode(), autocast(dtype):

        def image_peer() -> Tensor:
            return vector(peer.get_image_features(pixel_values=pixels))

        def text_peer() -> Tensor:
            return vector(peer.get_text_features(input_ids=wide, attention_mask=wide_mask.long()))

        name = str(dtype).removeprefix("torch.")
        kind = f"CLIP B/32, {LAYERS} layers,"
        yield compared(f"{kind} 8 images, {name}", lambda: model.encode_image(pixels), image_peer, 1.0)
        yield compared(
            f"{kind} 8 texts of 77 tokens, {name}", lambda: model.encode_text(full), text_peer, 1.0
        )
        # transformers' tokenizer pads to 77 with padding="max_length", as all systems for memes call it.
        yield compared(
            f"{kind} 8 texts as long as memes, {name}", lambda: model.encode_text(text), text_peer, 2.0
        )
        one, short = ids[3:4, :15], mask[3:4, :15]
        own = PaddedText(ids=one, mask=short, segments=torch.zeros_like(one))
        padded, padded_mask = wide[3:4], wide_mask[3:4].long()
        yield compared(
            f"{kind} a text of median length, {name}",
            lambda: model.encode_text(own),
            lambda: vector(peer.get_text_features(input_ids=padded, attention_mask=padded_mask)),
            2.5,
        )


def vector(found: object) -> Tensor:
    """The joint vectors; since version 5 transformers wraps them."""
    return found if isinstance(found, Tensor) else found.pooler_output  # type: ignore[attr-defined]


def texts(length: int) -> tuple[Tensor, Tensor]:
    """Ids and masks of eight texts, each with the end token 999 last."""
    mask = torch.arange(length) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(1, 900, (8, 77), generator=torch.Generator().manual_seed(0))[:, :length]
    ids[torch.arange(8), torch.tensor(LENGTHS) - 1] = 999
    return torch.where(mask, ids, 999), mask


def compared(what: str, ours: Callable[[], Tensor], theirs: Callable[[], Tensor], least: float) -> Row:
    """Compare the vectors, then time and throughput of both."""
    torch.testing.assert_close(
        F.normalize(ours().float(), dim=-1), F.normalize(theirs().float(), dim=-1), atol=0.02, rtol=0.02
    )
    fast, slow = in_turns(ours, theirs, clock=time.process_time)
    cells = (f"{1e3 * spent:.1f} ms" for spent in (fast, slow))
    row = what, next(cells), f"transformers {next(cells)}", f"{slow / fast:.2f}x"
    return (*row, promise(f">= {least:g}x", slow / fast >= 0.98 * least))


def autocast(dtype: torch.dtype) -> torch.autocast | nullcontext[None]:
    return nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype)
