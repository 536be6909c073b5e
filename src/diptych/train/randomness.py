"""Random numbers that depend on where a run stands, not on how it came there."""

import numpy as np
import torch


def reseed(generator: torch.Generator, *numbers: int) -> None:
    """Seed `generator` and torch's own for the CPU and the generator's device, from all of `numbers`."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
    # torch.manual_seed would also seed devices that are not there, and keep a stack trace for each.
    torch.default_generator.manual_seed(seed)
    if generator.device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif generator.device.type == "mps":
        torch.mps.manual_seed(seed)
    generator.manual_seed(seed)
