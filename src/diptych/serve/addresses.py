"""The addresses of the service and what they do."""

import asyncio
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from starlette.responses import Response

from diptych.errors import DiptychError
from diptych.serve.app import PAGE, Address, Call, Web, json_response
from diptych.serve.decisions import card
from diptych.serve.given import Given
from diptych.serve.intake import media_type, parse, parse_form, wrong_type
from diptych.serve.job_addresses import JOBS
from diptych.serve.moderation import answered, memes_of
from diptych.serve.openapi import openapi
from diptych.serve.problems import Problem
from diptych.serve.review import ReviewQueue
from diptych.serve.structs import (
    BatchAnswer,
    BatchItem,
    BatchRequest,
    FeedbackAnswer,
    FeedbackRequest,
    ModelCard,
    ModelList,
    ModerationAnswer,
    ModerationRequest,
    ProblemAnswer,
    Ready,
    ReloadAnswer,
    ReviewList,
    ScoreAnswer,
    ScoreRequest,
)

WAIT = re.compile(r"\bwait=(\d{1,6})\b")
REVIEWED = 100  # memes of the queue in one answer
BYTES = "application/octet-stream"
# Everything from this server, nothing inline: a page that shows texts of strangers must run none of them.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; "
    "require-trusted-types-for 'script'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


async def score(web: Web, call: Call) -> Response:
    """`POST /v1/score`."""
    kind, data = media_type(call.request), None
    if kind == "multipart/form-data":
        request, data = parse_form(call.request.headers["content-type"], call.body)
    elif kind in ("application/json", ""):
        request = parse(call.body, ScoreRequest)
    else:
        raise wrong_type(kind, "application/json or multipart/form-data")
    size = len(call.body)
    call.body = b""  # decoded by now; a queue of bodies would be twice as large
    given = given_of(request, data, size)
    answer = await call.work(
        web.service.score(given, request_id=call.id, caller=call.caller.name, deadline=wait_of(call))
    )
    note(call, answer)
    return json_response(answer)


def given_of(request: ScoreRequest, data: bytes | None, size: int) -> Given:
    """A meme of a request, with its picture wherever that came from."""
    inside = None if request.image is None else request.image.data
    return Given(request=request, data=inside if data is None else data, size=size)


async def score_batch(web: Web, call: Call) -> Response:
    """`POST /v1/score/batch`: one meme that fails leaves the others as they are."""
    require_json(call)
    items = parse(call.body, BatchRequest).items
    if len(items) > web.service.limits.items:
        detail = f"there are {len(items)} items; expected at most {web.service.limits.items}."
        raise Problem("too-large", detail, pointer="/items")
    share = len(call.body) // len(items)
    call.body = b""
    found = await call.work(scored_each(web, call, [given_of(item, None, share) for item in items]))
    call.notes["items"] = len(items)
    return json_response(BatchAnswer(items=found))


async def scored_each(web: Web, call: Call, memes: Sequence[Given]) -> list[BatchItem]:
    """Score several memes at once, each with a request id of its own."""

    async def one(number: int, given: Given) -> BatchItem:
        own = f"{call.id}.{number}"
        try:
            result = await web.service.score(
                given, request_id=own, caller=call.caller.name, deadline=wait_of(call)
            )
        except Problem as problem:
            return BatchItem(problem=ProblemAnswer(**problem.within(f"/items/{number}").as_dict(own)))
        return BatchItem(result=result)

    return [*await asyncio.gather(*(one(number, given) for number, given in enumerate(memes)))]


async def moderations(web: Web, call: Call) -> Response:
    """`POST /v1/moderations`, for clients of OpenAI."""
    require_json(call)
    asked = parse(call.body, ModerationRequest)
    model = web.service.engine.find(asked.model if asked.model in web.service.engine.models else None)
    if model.policy is None:
        detail = f"the model {model.name} has no policy, so nothing can be flagged; start with --policy."
        raise Problem("conflict", detail)
    memes = memes_of(asked, model.name, limits=web.service.limits)
    call.body = b""
    given = [
        given_of(meme, None, len(meme.text or "") + len((meme.image and meme.image.data) or b""))
        for meme in memes
    ]
    found = await call.work(scored_each(web, call, given))
    for item in found:
        if item.problem is not None:
            # OpenAI's shape has no place for a problem of one input.
            kind = item.problem.type.rpartition("/")[2]
            raise Problem(
                kind, item.problem.detail, pointer="/input", retry_after=1 if kind == "overloaded" else None
            )
    return json_response(answered(call.id, model, [item.result for item in found if item.result is not None]))


async def feedback(web: Web, call: Call) -> Response:
    """`POST /v1/feedback`; the same Idempotency-Key is written once."""
    require_json(call)
    given = parse(call.body, FeedbackRequest)
    write = partial(web.service.feedback, given, caller=call.caller)

    async def work() -> Response:
        # A lesson writes a folder, for which the loop must not wait.
        return json_response(await asyncio.to_thread(write) if given.teach else write())

    key = call.request.headers.get("idempotency-key")
    return await web.repeats.once(f"feedback {call.caller.name}", key, call.body, work)


async def review(web: Web, call: Call) -> Response:
    """`GET /v1/review`: memes that wait for people."""
    return json_response(_queue(web).listed(REVIEWED))


async def review_picture(web: Web, call: Call) -> Response:
    """`GET /v1/review/{id}/picture`."""
    # Without a type, so that no browser opens it as a page of this server.
    data = _queue(web).picture(call.request.path_params["id"])
    return Response(data, media_type=BYTES, headers={"Content-Security-Policy": POLICY})


def _queue(web: Web) -> ReviewQueue:
    if web.service.review is None:
        raise Problem("conflict", "this service keeps no memes for people; start it with --review NUMBER.")
    return web.service.review


async def models(web: Web, call: Call) -> Response:
    """`GET /v1/models`."""
    service, limits = web.service, web.service.limits
    cards = [
        card(one, limits, default=not number, teachers=service.teachers)
        for number, one in enumerate(service.engine.models.values())
    ]
    return json_response(
        ModelList(
            models=cards, reads_words=service.reader.words is not None, review=service.review is not None
        )
    )


async def model(web: Web, call: Call) -> Response:
    """`GET /v1/models/{name}`."""
    found = web.service.engine.find(call.request.path_params["name"])
    first = web.service.engine.find(None)
    service = web.service
    return json_response(card(found, service.limits, default=found is first, teachers=service.teachers))


async def reload(web: Web, call: Call) -> Response:
    """`POST /v1/models/{name}:reload`: load beside the old one, warm up, swap."""
    name = call.request.path_params["name"]
    old = web.service.engine.find(name)
    if web.load_again is None or name in web.reloading:
        why = "is being loaded already" if web.load_again else "cannot be loaded again here"
        raise Problem("conflict", f"the model {name} {why}.", retry_after=10)
    web.reloading.add(name)
    try:
        new = await asyncio.to_thread(web.load_again, name)
        web.service.exchange(new)
    except DiptychError as error:
        web.service.metrics.reloads.labels("failed").inc()
        # For administrators only, who need the reason.
        raise Problem("conflict", f"the old model stays: {error}") from error
    except Exception:
        web.service.metrics.reloads.labels("failed").inc()
        raise
    finally:
        web.reloading.discard(name)
    web.service.metrics.reloads.labels("done").inc()
    return json_response(ReloadAnswer(name=name, before=old.sha256, after=new.sha256))


async def livez(web: Web, call: Call) -> Response:
    """`GET /livez`: the loop of HTTP turns."""
    return json_response(Ready(ready=True, why=""))


async def readyz(web: Web, call: Call) -> Response:
    """`GET /readyz`: models are warm, the queue has room, and the service is not stopping."""
    why = web.service.ready()
    return json_response(Ready(ready=not why, why=why), 503 if why else 200)


async def metrics(web: Web, call: Call) -> Response:
    """`GET /metrics`."""
    inflight, queued = web.service.engine.busy
    web.service.metrics.inflight.set(inflight)
    web.service.metrics.queue_items.set(queued)
    web.service.metrics.job_items.set(web.jobs.waiting)
    web.service.metrics.review_items.set(len(web.service.review or ()))
    return Response(web.service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def description(web: Web, call: Call) -> Response:
    """`GET /openapi.json`."""
    return json_response(openapi(web.addresses, web.service.limits))


async def page(web: Web, call: Call) -> Response:
    """`GET /` and the files of the page, which are part of the package."""
    name = call.request.path_params.get("file", "index.html")
    # Compared with the names that there are, never joined to a path.
    files = {path.name: path for path in PAGE.iterdir() if path.suffix in TYPES}
    if name not in files:
        raise Problem("not-found", "the page has no such file.")
    path: Path = files[name]
    headers = {"Content-Security-Policy": POLICY, "X-Frame-Options": "DENY"}
    return Response(path.read_bytes(), media_type=TYPES[path.suffix], headers=headers)


def require_json(call: Call) -> None:
    """Refuse bodies of another type.

    Raises:
        Problem: `unsupported-media`.
    """
    if (kind := media_type(call.request)) not in ("application/json", ""):
        raise wrong_type(kind, "application/json")


def wait_of(call: Call) -> float | None:
    """The seconds of `Prefer: wait=`."""
    found = WAIT.search(call.request.headers.get("prefer", ""))
    return None if found is None else max(0.001, float(found[1]))


def note(call: Call, answer: ScoreAnswer) -> None:
    """Tell the log what was decided, and how long each stage took."""
    timing = answer.timing_ms
    call.notes |= {
        "model": answer.model.name,
        "action": None if answer.decision is None else answer.decision.action,
        "stages": {
            "queue": timing.queue,
            "prepare": timing.prepare,
            "ocr": timing.ocr,
            "model": timing.model,
        },
        "cache": timing.cache,
    }


ADDRESSES = (
    Address(
        method="POST", path="/v1/score", handler=score, summary="Score a meme.",
        reads=ScoreRequest, answers=ScoreAnswer, queues=True,
    ),
    Address(
        method="POST", path="/v1/score/batch", handler=score_batch, summary="Score several memes.",
        reads=BatchRequest, answers=BatchAnswer,
    ),
    Address(
        method="POST", path="/v1/moderations", handler=moderations, summary="OpenAI's moderation.",
        reads=ModerationRequest, answers=ModerationAnswer,
    ),
    Address(
        method="POST", path="/v1/feedback", handler=feedback, summary="The decision of a person.",
        reads=FeedbackRequest, answers=FeedbackAnswer,
    ),
    Address(
        method="GET", path="/v1/review", handler=review, role="reviewer",
        summary="Memes that wait for people.", answers=ReviewList,
    ),
    Address(
        method="GET", path="/v1/review/{id}/picture", handler=review_picture, role="reviewer",
        summary="The picture of such a meme.", answers=BYTES,
    ),
    *JOBS,
    Address(method="GET", path="/v1/models", handler=models, summary="All models.", answers=ModelList),
    Address(
        method="POST", path="/v1/models/{name}:reload", handler=reload, role="admin",
        summary="Load a model again.", answers=ReloadAnswer,
    ),
    Address(method="GET", path="/v1/models/{name}", handler=model, summary="A model.", answers=ModelCard),
    Address(method="GET", path="/livez", handler=livez, role=None, summary="Is it running?", answers=Ready),
    Address(method="GET", path="/readyz", handler=readyz, role=None, summary="Is it ready?", answers=Ready),
    Address(
        method="GET", path="/metrics", handler=metrics, role=None, summary="For Prometheus.",
        answers="text/plain",
    ),
    Address(
        method="GET", path="/openapi.json", handler=description, role=None, summary="This description.",
        answers="application/json",
    ),
    Address(method="GET", path="/", handler=page, role=None, summary="For people.", answers="text/html"),
    Address(
        method="GET", path="/page/{file}", handler=page, role=None, summary="Files of the page.",
        answers="text/css",
    ),
)  # fmt: skip
MONITORED = ("/metrics", "/livez", "/readyz")
"""Addresses of `--metrics-port`."""
