"""Random numbers that depend only on the position in a run, so that a resumed run draws the same ones."""

import numpy as np
import torch


def reseed(generator: torch.Generator, *numbers: int) -> None:
    """Seed `generator` and the global generators of the CPU and of its device, from all of `numbers`."""
    # The hash of `SeedSequence` makes neighboring numbers unrelated; torch takes 63 bits.
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
    # torch.manual_seed would also seed devices that do not exist, and keep a stack trace for each.
    torch.default_generator.manual_seed(seed)
    if generator.device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif generator.device.type == "mps":
        torch.mps.manual_seed(seed)
    generator.manual_seed(seed)
