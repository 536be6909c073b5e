"""Jobs: many memes that nobody waits for, scored while nobody else asks.

A job is kept in memory, as everything of the service but its audit log and its cases, and ends with the
process. Whoever needs its results after a restart sends it again.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from diptych.errors import report_internal
from diptych.serve.given import Given
from diptych.serve.keys import Caller, new_request_id
from diptych.serve.problems import Problem
from diptych.serve.service import Service
from diptych.serve.structs import JobAnswer, JobLine, JobState, ProblemAnswer


@dataclass(kw_only=True, eq=False)
class Job:
    """Memes on their way to results.

    Args:
        caller: name of the key that sent it, which alone sees it, apart from administrators.
        items: not scored yet; None where there is a line.
        lines: results as JSON, in the order of the items; None where there is none yet.
        ended: by `time.monotonic`; None while it runs.
    """

    id: str
    caller: str
    items: list[Given | None]
    lines: list[bytes | None]
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    state: JobState = "running"
    done: int = 0
    failed: int = 0
    size: int = 0
    ended: float | None = None
    finished: datetime | None = None
    task: "asyncio.Task[None] | None" = None

    def answer(self) -> JobAnswer:
        """The job as clients see it."""
        return JobAnswer(
            id=self.id,
            state=self.state,
            items=len(self.items),
            done=self.done,
            failed=self.failed,
            created=self.created.isoformat(timespec="seconds"),
            finished=None if self.finished is None else self.finished.isoformat(timespec="seconds"),
            results=f"/v1/jobs/{self.id}/results",
        )


class Jobs:
    """The jobs of a service; all methods run in the loop of HTTP.

    Args:
        log: where errors of the program go; None writes nothing.
    """

    def __init__(self, service: Service, *, log: Callable[[str], object] | None = None) -> None:
        self.service, self.limits, self.log = service, service.limits, log
        self._known: dict[str, Job] = {}

    @property
    def kept(self) -> int:
        """Bytes of all requests and results that are kept."""
        return sum(job.size for job in self._known.values())

    @property
    def waiting(self) -> int:
        """Memes that are not scored yet."""
        return sum(len(job.items) - job.done for job in self._known.values() if job.state == "running")

    def submit(self, items: Sequence[Given], caller: Caller) -> Job:
        """Take a job and begin.

        Raises:
            Problem: there is no room, or the service stops.
        """
        # Old results go first: they may be what fills the room.
        self._forget()
        if self.service.leaving or self.service.engine.draining:
            raise Problem("draining", "the service is stopping; ask another one.", retry_after=5)
        size, limits = sum(item.size for item in items), self.limits
        if len(self._known) >= limits.jobs or self.kept + size > limits.job_bytes:
            detail = (
                f"{len(self._known)} jobs with {self.kept} bytes are kept; expected at most {limits.jobs} "
                f"with {limits.job_bytes}, this one included. Fetch results and delete their jobs."
            )
            raise Problem("overloaded", detail, retry_after=30)
        job = Job(
            id=new_request_id(), caller=caller.name, items=[*items], lines=[None] * len(items), size=size
        )
        self._known[job.id] = job
        job.task = asyncio.get_running_loop().create_task(self._run(job))
        return job

    def find(self, name: str, caller: Caller) -> Job:
        """A job by its id.

        Raises:
            Problem: there is none, or it is of another key.
        """
        self._forget()
        job = self._known.get(name)
        # The same words for both: an id says nothing of the jobs of others.
        if job is None or not _may_see(job, caller):
            raise Problem("not-found", "there is no such job; those of before a restart are gone.")
        return job

    def listed(self, caller: Caller) -> list[Job]:
        """The jobs that a key may see, the oldest first."""
        self._forget()
        return [job for job in self._known.values() if _may_see(job, caller)]

    def drop(self, job: Job) -> None:
        """Cancel a job, and forget it and its results."""
        self._known.pop(job.id, None)
        # Cancelled workers end at their next `await`; what is in the model is computed and thrown away.
        if job.task is not None:
            job.task.cancel()
        self._end(job)

    async def close(self) -> None:
        """Stop all jobs."""
        tasks = [job.task for job in self._known.values() if job.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self) -> None:
        """Forget jobs whose results nobody fetched in time."""
        now = time.monotonic()
        for job in [*self._known.values()]:
            if job.ended is not None and now - job.ended > self.limits.job_keep:
                del self._known[job.id]

    async def _run(self, job: Job) -> None:
        end = time.monotonic() + self.limits.job_seconds
        # One iterator for all workers: each number is taken once, in order, without a queue.
        numbers = iter(range(len(job.items)))

        async def work() -> None:
            for number in numbers:
                if self.service.leaving:
                    return
                await self._score(job, number, end)

        try:
            # As many at once as fit into a batch; the rest of the job stays out of the queue.
            await asyncio.gather(*(work() for _ in range(self.limits.job_batch)))
        finally:
            self._end(job)

    async def _score(self, job: Job, number: int, end: float) -> None:
        given, own = job.items[number], f"{job.id}.{number}"
        assert given is not None  # each is taken once
        line = JobLine(number=number, id=given.request.id)
        try:
            # What is left of the whole job, so that its last meme is not given a day of its own.
            left = max(0.0, end - time.monotonic())
            result = await self.service.score(
                given, request_id=own, caller=job.caller, deadline=left, low=True
            )
            line = msgspec.structs.replace(line, result=result)
            # Results may be longer than their requests, for which room was found.
            if self.kept + len(text := msgspec.json.encode(line)) > self.limits.job_bytes + given.size:
                raise Problem("overloaded", "there is no room for further results; delete other jobs.")
        except Problem as problem:
            text = self._failed(job, line, problem, own)
        # A fault of one meme must not end the others of the job.
        except Exception as error:
            if self.log is not None:
                about = {"request_id": own, "key": job.caller, "error": report_internal(error)}
                self.log(msgspec.json.encode(about).decode() + "\n")
            text = self._failed(job, line, Problem("internal", "the service failed for this meme."), own)
        # The request is let go with its picture, which is most of what a job keeps.
        job.items[number], job.lines[number] = None, text
        job.size += len(text) - given.size
        job.done += 1

    def _failed(self, job: Job, line: JobLine, problem: Problem, own: str) -> bytes:
        job.failed += 1
        about = problem.within(f"/{line.number}").as_dict(own)
        return msgspec.json.encode(msgspec.structs.replace(line, result=None, problem=ProblemAnswer(**about)))

    def _end(self, job: Job) -> None:
        if job.ended is None:
            job.state = "done" if job.done == len(job.items) else "stopped"
            job.ended, job.finished = time.monotonic(), datetime.now(UTC)
            # What was not scored will not be.
            job.size -= sum(item.size for item in job.items if item is not None)
            job.items = [None] * len(job.items)


def _may_see(job: Job, caller: Caller) -> bool:
    return caller.role == "admin" or job.caller == caller.name
