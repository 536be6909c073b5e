"""The addresses of jobs: JSON lines in, JSON lines out, and progress in between."""

import asyncio
from io import BytesIO

from starlette.responses import Response

from diptych.serve.app import Address, Call, Web, json_response
from diptych.serve.given import Given
from diptych.serve.intake import media_type, parse, wrong_type
from diptych.serve.problems import Problem
from diptych.serve.structs import JobAnswer, JobLine, JobList, ScoreRequest

LINES = "application/jsonl"
KINDS = (LINES, "application/x-ndjson", "application/x-jsonlines", "")


async def submit(web: Web, call: Call) -> Response:
    """`POST /v1/jobs`: a line per meme, as for `/v1/score`; the same Idempotency-Key begins one job."""
    if (kind := media_type(call.request)) not in KINDS:
        raise wrong_type(kind, LINES)

    async def work() -> Response:
        # Base64 of many megabytes: not in the loop.
        items = await asyncio.to_thread(read_lines, call.body, web.service.limits.job_items)
        job = web.jobs.submit(items, call.caller)
        call.notes["items"] = len(items)
        response = json_response(job.answer(), 202)
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return response

    key = call.request.headers.get("idempotency-key")
    return await web.repeats.once(f"jobs {call.caller.name}", key, call.body, work)


def read_lines(body: bytes, most: int) -> list[Given]:
    """Decode the lines of a job; empty ones are left out.

    Raises:
        Problem: a line is no meme, and then nothing is scored; or there are too many, or none.
    """
    found: list[Given] = []
    for number, line in enumerate(BytesIO(body), 1):
        if not line.strip():
            continue
        if len(found) == most:
            raise Problem("too-large", f"line {number}: a job has at most {most} memes; send several jobs.")
        place = f"/{len(found)}"
        try:
            request = parse(line, ScoreRequest)
        except Problem as problem:
            errors = problem.within(place).errors or ((place, problem.detail),)
            raise Problem(problem.kind, f"line {number}: {problem.detail}", errors=errors) from problem
        if request.options.explain:
            detail = f"line {number}: jobs have no evidence; ask /v1/score for it."
            raise Problem("invalid-request", detail, pointer=f"{place}/options/explain")
        data = None if request.image is None else request.image.data
        found.append(Given(request=request, data=data, size=len(line)))
    if not found:
        raise Problem("invalid-request", f"the body has no memes; expected {LINES}, one per line.")
    return found


async def listed(web: Web, call: Call) -> Response:
    """`GET /v1/jobs`."""
    return json_response(JobList(jobs=[job.answer() for job in web.jobs.listed(call.caller)]))


async def progress(web: Web, call: Call) -> Response:
    """`GET /v1/jobs/{id}`."""
    return json_response(web.jobs.find(call.request.path_params["id"], call.caller).answer())


async def results(web: Web, call: Call) -> Response:
    """`GET /v1/jobs/{id}/results`; of a job that was stopped, those that there are."""
    job = web.jobs.find(call.request.path_params["id"], call.caller)
    if job.state == "running":
        detail = f"{job.done} of {len(job.items)} memes are scored; come again."
        raise Problem("conflict", detail, retry_after=5)
    body = b"".join(line + b"\n" for line in job.lines if line is not None)
    return Response(body, media_type=LINES)


async def cancel(web: Web, call: Call) -> Response:
    """`DELETE /v1/jobs/{id}`: stop it, and forget its results."""
    job = web.jobs.find(call.request.path_params["id"], call.caller)
    web.jobs.drop(job)
    return json_response(job.answer())


JOBS = (
    Address(
        method="POST", path="/v1/jobs", handler=submit, summary="Score many memes, behind all others.",
        reads=ScoreRequest, answers=JobAnswer, code=202, most="job_body", lines=True,
    ),
    Address(method="GET", path="/v1/jobs", handler=listed, summary="Your jobs.", answers=JobList),
    Address(method="GET", path="/v1/jobs/{id}", handler=progress, summary="A job.", answers=JobAnswer),
    Address(
        method="GET", path="/v1/jobs/{id}/results", handler=results, summary="Its results, one per line.",
        answers=JobLine, lines=True,
    ),
    Address(
        method="DELETE", path="/v1/jobs/{id}", handler=cancel, summary="Cancel and forget a job.",
        answers=JobAnswer,
    ),
)  # fmt: skip
