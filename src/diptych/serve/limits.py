"""Limits of the service: what a stranger may send, and how much is kept at once."""

import os
from dataclasses import dataclass

from diptych.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All limits of the service. They are part of every model's card, so that clients can read them.

    Args:
        body: bytes of a request.
        picture: bytes of an encoded picture.
        pixels: of a picture, checked before it is decoded.
        side: longest side of a picture in pixels.
        text: characters of a text.
        items: memes of one request to `/v1/score/batch`.
        queue: memes that are accepted and not answered yet; further ones are refused at once.
        queue_bytes: bytes of their requests.
        batch: memes that a model scores together.
        cost: memes of a batch times tokens and regions of its longest meme.
        deadline: seconds from the arrival of a request to its answer.
        explain: the same for a request with `options.explain`.
        permutations: orders of words and regions that its evidence is a mean of; its time grows with them.
        receive: seconds to receive a body.
        keep_alive: seconds that an idle connection stays open.
        header: bytes of the headers of a request.
        cache: number of scores that are kept for repeated memes.
        rate: requests per second of one key, on average; 0 is without limit.
        burst: requests of one key at once.
        jobs: jobs that are kept, running and ended ones; 0 takes none.
        job_body: bytes of the body of a job.
        job_items: memes of a job.
        job_bytes: of the requests and results of all jobs.
        job_batch: memes of jobs that are scored together, and memes of a job that are prepared at once.
        job_seconds: from the arrival of a job to its end.
        job_keep: seconds that an ended job is kept.
    """

    body: int = 12_000_000
    picture: int = 10_000_000
    pixels: int = 40_000_000
    side: int = 16_384
    text: int = 10_000
    items: int = 64
    queue: int = 256
    queue_bytes: int = 256_000_000
    batch: int = 32
    cost: int = 16_384
    deadline: float = 10.0
    explain: float = 30.0
    permutations: int = 4
    receive: float = 30.0
    keep_alive: int = 5
    header: int = 16_384
    cache: int = 4096
    rate: float = 0.0
    burst: int = 100
    jobs: int = 16
    job_body: int = 64_000_000
    job_items: int = 10_000
    job_bytes: int = 256_000_000
    job_batch: int = 8
    job_seconds: float = 86_400.0
    job_keep: float = 3600.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            least = {"cache": 0, "rate": 0, "permutations": 2, "jobs": 0}.get(name, 1)
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"the limit {name} is {value}; expected at least {least}.")


def model_threads() -> int:
    """Threads for the model: all cores that this process may use, except one for HTTP.

    With both on the last core, the time of a small model grows more than tenfold on a busy machine.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)
