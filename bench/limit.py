"""Speed at the limit: lower precision, compiled layers, training without padding, the loader beside a step.

Base-size models have fewer layers, of full width, so that a shared machine gets through. Times are of the
processor, except where worker processes take part.
"""

import copy
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from bench._timing import in_turns, promise
from bench.loading import BATCH, MEMES, memes
from bench.models import LENGTHS, batches, compared, eight, floor, name, stepper
from torch import Tensor, nn
from torch.utils.data import DataLoader

from diptych.data import Collate, Processor, Sources
from diptych.models import oscar_base, uniter_base, uniter_tiny, visualbert_base
from diptych.nn import to_int8
from diptych.predict import compile_layers
from diptych.types import EVERYTHING, Batch, Inputs

Row = tuple[str, ...]
LAYERS = 4
POOLED = frozenset({"pooled"})
SHAPE = f"UNITER, {LAYERS} layers of width 768, 8 memes"


def rows() -> Iterator[Row]:
    """What was measured, ours, the other way, and how many times faster ours is."""
    torch.manual_seed(0)
    model = uniter_base(layers=LAYERS, vocab_size=1000).eval()
    yield from lower_precision(model)
    yield from compiled(model)
    for build in (uniter_base, oscar_base, visualbert_base):
        model = build(layers=LAYERS, vocab_size=1000, dropout=0.0, attention_dropout=0.0)
        for dtype in (torch.float32, torch.bfloat16) if has_bfloat16() else (torch.float32,):
            yield training(model, dtype)
    with tempfile.TemporaryDirectory(prefix="diptych-bench-") as folder:
        yield from feeding(Path(folder))


def has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16; without such units it is many times slower than fp32."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def lower_precision(model: nn.Module) -> Iterator[Row]:
    """Integers of 8 bits and bfloat16 beside fp32; what they cost in AUROC is in docs/numbers.md."""
    given, rounded = eight(), copy.deepcopy(model)
    to_int8(rounded)

    def half() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return pooled(model, given)

    with torch.inference_mode():
        yield compared(
            f"{SHAPE}: int8",
            lambda: pooled(rounded, given),
            "fp32",
            lambda: pooled(model, given),
            least=1.2,
        )
        yield floor(rounded, f"{SHAPE}: int8, and its linear layers alone")
        units = "" if has_bfloat16() else ", no units for it here"
        yield compared(f"{SHAPE}: bf16{units}", half, "fp32", lambda: pooled(model, given))


def compiled(model: nn.Module) -> Iterator[Row]:
    """Layers through torch.compile, over batches of several shapes; scores must be equal within rounding."""
    faster, shapes = copy.deepcopy(model), [eight(), *batches(None)]
    with torch.inference_mode():
        expected = [pooled(model, each) for each in shapes]
        began = time.process_time()
        compile_layers(faster)
        got = [pooled(faster, each) for each in shapes]
        warm = time.process_time() - began
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
        yield compared(
            f"{SHAPE}, and in 2 batches: compiled for 3 shapes in {warm:.0f} s, equal within 1e-5",
            lambda: [pooled(faster, each) for each in shapes],
            "fp32, not compiled",
            lambda: [pooled(model, each) for each in shapes],
            count=2 * len(LENGTHS),
        )


def training(model: nn.Module, dtype: torch.dtype) -> Row:
    """A step over batches of similar length, and over batches as the originals make them.

    These pad every text to 128 tokens and compute the states of all positions in every layer.
    """
    buckets, fixed = batches(None), batches(128)
    # one step over each batch: as many examples on both sides
    ours = [stepper(model, lambda each=each: pooled(model, each), dtype) for each in buckets]
    theirs = [stepper(model, lambda each=each: everything(model, each), dtype) for each in fixed]
    kind = f"{type(model).__name__}, {LAYERS} layers of width 768"
    return compared(
        f"{kind}, training step, 36 regions, {name(dtype)}",
        lambda: [step() for step in ours],
        "padded to 128 tokens",
        lambda: [step() for step in theirs],
        least=3.0,
    )


def pooled(model: nn.Module, given: Inputs) -> Tensor:
    vector: Tensor = model(given, reads=POOLED).pooled
    return vector


def everything(model: nn.Module, given: Inputs) -> Tensor:
    vector: Tensor = model(given, reads=EVERYTHING).pooled
    return vector


def feeding(folder: Path) -> Iterator[Row]:
    """Rows per second from a loader with two workers, and what a training step takes; on the clock."""
    examples, tokenizer, store = memes(folder)
    loader: DataLoader[Batch] = DataLoader(
        examples,  # type: ignore[arg-type]
        BATCH,
        collate_fn=Collate(Processor(text=tokenizer, regions=True), sources=Sources(regions=store)),
        num_workers=2,
        persistent_workers=True,
    )
    batch = next(iter(loader))
    for build, layers in ((uniter_tiny, 2), (uniter_base, 12)):
        model = build(feature_dim=2048, vocab_size=tokenizer.vocab_size, layers=layers)
        step = stepper(model, lambda model=model: pooled(model, batch.inputs), torch.float32)
        loads, steps = in_turns(lambda: [*loader], step, most=3)
        loaded, taken = MEMES / loads, len(batch.ids) / steps
        yield (
            f"loader with 2 workers, 36 x 2048 regions, beside {build.__name__}",
            f"{loaded:,.0f} rows/s",
            f"a training step takes {taken:,.1f} rows/s",
            f"{loaded / taken:.1f}x",
            promise(">= 1x", loaded >= taken),
        )
