"""Models against the padding, the library and the memory layout that others use, and against their own floor.

Times are of the processor: other work on the machine disturbs them least.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from bench._peers import POOLED, Peers, bert, peers
from bench._timing import in_turns, promise
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from diptych.models import oscar_base, uniter_base, visualbert_base
from diptych.nn import ClassifierHead, Int8Linear, ResNet, resnet50, resnet_tiny
from diptych.types import EVERYTHING, Inputs, PaddedRegions, PaddedText

Row = tuple[str, ...]
# Word pieces of eight memes: DrivenData's statistics of words per text (quartiles 7, 10 and 15), plus a third
# for word pieces, plus two special tokens.
LENGTHS = (7, 11, 13, 15, 17, 20, 25, 36)
REGIONS = 36
BATCH = 4  # memes of similar length that go together


def rows() -> Iterator[Row]:
    """What was measured, ours, the other way, and how many times faster ours is."""
    torch.manual_seed(0)
    for build in (uniter_base, oscar_base, visualbert_base):
        for dtype in (torch.float32, torch.bfloat16):
            yield from padding(build, dtype)
    yield from reading()
    yield floor(uniter_base(vocab_size=1000).eval(), "UNITER-base forward, 8 memes, what a classifier reads")
    yield from against_transformers()
    yield from layouts()


def padding(build: Callable[..., nn.Module], dtype: torch.dtype) -> Iterator[Row]:
    """The same numbers from batches padded to their longest text, or to 128 tokens as Vilio's Oscar does."""
    model = build(layers=4, vocab_size=1000).eval()
    buckets, fixed = batches(None), batches(128)
    near = {"atol": 2e-5, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.1}

    def score(some: list[Inputs]) -> list[Tensor]:
        return [model(each, reads=POOLED).pooled for each in some]

    with torch.inference_mode(), autocast(dtype):
        torch.testing.assert_close(torch.cat(score(buckets)), torch.cat(score(fixed)), **near)
        kind = f"{type(model).__name__}, 4 layers of width 768"
        what = f"{kind}, forward, memes with {REGIONS} regions, {name(dtype)}"
        yield compared(what, lambda: score(buckets), "padded to 128 tokens", lambda: score(fixed), least=2.0)
        yield lighter(what, lambda: score(buckets), "padded to 128 tokens", lambda: score(fixed))


def batches(length: int | None) -> list[Inputs]:
    """All memes in order of length; None pads each batch to its longest text."""
    parts = [LENGTHS[start : start + BATCH] for start in range(0, len(LENGTHS), BATCH)]
    return [Inputs(text=text(part, length or max(part)), regions=regions(len(part))) for part in parts]


def text(lengths: tuple[int, ...], length: int) -> PaddedText:
    """The same tokens, padded to `length`."""
    mask = torch.arange(length) < torch.tensor(lengths)[:, None]
    ids = torch.randint(1, 1000, (len(lengths), 128), generator=torch.Generator().manual_seed(0))
    ids = ids[:, :length] * mask
    return PaddedText(ids=ids, mask=mask, segments=torch.zeros_like(ids))


def regions(count: int) -> PaddedRegions:
    shape, generator = (count, REGIONS), torch.Generator().manual_seed(0)
    return PaddedRegions(
        features=torch.randn(*shape, 2048, generator=generator),
        boxes=torch.rand(*shape, 4, generator=generator),
        mask=torch.ones(shape, dtype=torch.bool),
        image_index=torch.zeros(shape, dtype=torch.int64),
        sizes=torch.ones(count, 2),
    )


def eight() -> Inputs:
    """All memes in one batch."""
    return Inputs(text=text(LENGTHS, max(LENGTHS)), regions=regions(len(LENGTHS)))


def reading() -> Iterator[Row]:
    """Computing what a classifier reads, or everything."""
    given, model = eight(), uniter_base(vocab_size=1000).eval()
    with torch.inference_mode():
        yield compared(
            "UNITER-base forward, 8 memes, what a classifier reads",
            lambda: model(given, reads=POOLED),
            "everything",
            lambda: model(given, reads=EVERYTHING),
        )


def floor(model: nn.Module, what: str) -> Row:
    """A forward pass, and its linear layers alone, which nothing can do without."""
    given = eight()
    calls: list[tuple[nn.Module, Tensor]] = []
    linears = [part for part in model.modules() if isinstance(part, nn.Linear | Int8Linear)]
    hooks = [
        part.register_forward_hook(lambda module, given, result: calls.append((module, given[0])))
        for part in linears
    ]
    with torch.inference_mode():
        model(given, reads=POOLED)
        for hook in hooks:
            hook.remove()
        work = sum(2 * x.numel() * module.out_features for module, x in calls)
        fast, least = in_turns(
            lambda: model(given, reads=POOLED),
            lambda: [module(x) for module, x in calls],
            clock=time.process_time,
        )
    return (
        what,
        f"{1e3 * fast:.0f} ms, {work / fast / 1e9:.0f} GFLOP/s",
        f"its products alone {1e3 * least:.0f} ms, {work / least / 1e9:.0f} GFLOP/s",
        f"{least / fast:.2f}x",
    )


def against_transformers() -> Iterator[Row]:
    """Our models and transformers' with the same weights: forward, training step, memory; fp32 and bf16."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        yield "BERT, VisualBERT, LXMERT", "", "transformers is not installed", ""
        return
    given = eight()
    tiny = bert(given, 2, width=48, heads=4)
    yield forward(tiny, torch.float32)
    for pair in peers(given):
        for dtype in (torch.float32, torch.bfloat16):
            yield forward(pair, dtype)
            yield from training(pair, dtype)


def forward(pair: Peers, dtype: torch.dtype) -> Row:
    pair.model.eval(), pair.peer.eval()
    with torch.inference_mode(), autocast(dtype):
        near = {"atol": 2e-5, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.1}
        torch.testing.assert_close(pair.ours(), pair.theirs(), **near, check_dtype=False)
        return compared(
            f"{pair.shape}, forward, {name(dtype)}", pair.ours, "transformers", pair.theirs, least=1.0
        )


def training(pair: Peers, dtype: torch.dtype) -> Iterator[Row]:
    """Forward, backward and AdamW: time, then the memory beyond weights and the optimizer's state."""
    ours, theirs = stepper(pair.model, pair.ours, dtype), stepper(pair.peer, pair.theirs, dtype)
    what = f"{pair.shape}, training step, {name(dtype)}"
    yield compared(what, ours, "transformers", theirs, least=1.0)
    yield lighter(what, ours, "transformers", theirs)


def stepper(model: nn.Module, pooled: Callable[[], Tensor], dtype: torch.dtype) -> Callable[[], None]:
    """A training step of a model: forward, backward and AdamW."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-6, fused=True)

    def step() -> None:
        with autocast(dtype):
            loss = pooled().float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def lighter(what: str, ours: Callable[[], object], whose: str, theirs: Callable[[], object]) -> Row:
    """How much memory either way takes at most."""
    few, many = peak(ours), peak(theirs)
    return (
        f"{what}, peak memory",
        f"{few / 2**20:.0f} MiB",
        f"{whose} {many / 2**20:.0f} MiB",
        f"{many / few:.2f}x",
    )


def peak(call: Callable[[], object]) -> int:
    """Most bytes of tensors at once during a call, over what there was before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    now = most = 0
    for event in sorted(record.profiler.kineto_results.events(), key=lambda one: one.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def autocast(dtype: torch.dtype) -> Any:
    return nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype)


def name(dtype: torch.dtype) -> str:
    return "fp32" if dtype == torch.float32 else "bf16"


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
            count=4,
        )
    head, little, labels = ClassifierHead(small.dim, 2), torch.randn(32, 3, 112, 112), torch.zeros(32).long()

    def step(forward: Callable[[Tensor], Tensor]) -> None:
        F.cross_entropy(head(forward(little)), labels).backward()

    yield compared(
        "ResNet-tiny forward and backward, 32 pictures of 112 pixels",
        lambda: step(small),
        "channels first",
        lambda: step(lambda x: channels_first(small, x)),
        count=32,
    )


def channels_first(model: ResNet, pixels: Tensor) -> Tensor:
    x = model.pool(F.relu(model.bn1(model.conv1(pixels))))
    x = model.layer4(model.layer3(model.layer2(model.layer1(x))))
    return x.mean((2, 3))


def compared(
    what: str,
    ours: Callable[[], Any],
    name: str,
    other: Callable[[], Any],
    *,
    count: int = len(LENGTHS),
    least: float | None = None,
) -> Row:
    """Time and throughput of both.

    Args:
        count: memes or pictures of one call.
        least: the ratio that is promised.
    """
    fast, slow = in_turns(ours, other, clock=time.process_time)
    cells = (f"{1e3 * spent:.1f} ms, {count / spent:.0f}/s" for spent in (fast, slow))
    row = what, next(cells), f"{name} {next(cells)}", f"{slow / fast:.2f}x"
    return row if least is None else (*row, promise(f">= {least:g}x", slow / fast >= 0.98 * least))
