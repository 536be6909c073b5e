"""A client of `diptych serve`. It needs nothing but Python's library.

client = Client("http://127.0.0.1:8000", key="...")
verdict = client.score(image="meme.png", text="what a day")
print(verdict.action, verdict.scores)
"""

import base64
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

from diptych.errors import ConfigError, DiptychError

DONE = (200, 202)
PATIENT = (429, 503)  # codes after which the same request may succeed
LONGEST = 64 << 20  # bytes of an answer


class ServiceError(DiptychError):
    """The service answered with a problem.

    Args:
        kind: such as `overloaded` or `bad-picture`.
        errors: JSON pointers to the values at fault, with what is wrong.
    """

    def __init__(self, status: int, kind: str, detail: str, errors: Mapping[str, str]) -> None:
        super().__init__(f"{kind} ({status}): {detail}")
        self.status, self.kind, self.detail, self.errors = status, kind, detail, dict(errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The verdict on a meme.

    Args:
        action: `allow`, `review` or `block`; None if the model has no policy.
        scores: calibrated probabilities by label; without a policy, the model's own.
        probability: calibrated, of the label that the action is about; None without a policy.
        why: how the score compares with the thresholds.
        text: that was judged, given or read from the picture.
        whole: the answer as it came.
    """

    request_id: str
    model: str
    answer: str
    scores: Mapping[str, float]
    action: str | None
    probability: float | None
    why: str
    text: str
    whole: Mapping[str, Any] = field(repr=False)


class Client:
    """Asks a service. One connection is kept open; use a client per thread.

    Args:
        url: such as `http://127.0.0.1:8000`.
        key: sent as a bearer token.
        timeout: seconds to connect, and for an answer.
        tries: of a request that the service refuses for the moment, or whose connection breaks.
        longest: seconds of the longest pause between two tries; the service's `Retry-After` is kept up to it.

    Raises:
        ConfigError: the address is not one of http or https.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 30.0,
        tries: int = 4,
        longest: float = 30.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url}: expected an address such as http://127.0.0.1:8000.")
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout)
        self._base, self._tries, self._longest = parts.path.rstrip("/"), tries, longest
        self._headers = {"Accept": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def score(
        self,
        *,
        text: str | None = None,
        image: Path | str | bytes | None = None,
        image_key: str | None = None,
        model: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Answer:
        """Score a meme.

        Args:
            image: a picture file or its bytes.
            image_key: of a picture that the service knows.

        Raises:
            ServiceError: the service refuses it.
            OSError: there is no connection.
        """
        meme = meme_of(text=text, image=image, image_key=image_key, model=model, tags=tags)
        return _answer(self.ask("POST", "/v1/score", meme))

    def score_batch(self, memes: Sequence[Mapping[str, Any]]) -> list[Answer | ServiceError]:
        """Score several memes; those that are refused give their error. For the memes see `meme_of`."""
        found = self.ask("POST", "/v1/score/batch", {"items": [*memes]})["items"]
        return [_either(one) for one in found]

    def feedback(
        self,
        request_id: str,
        action: str,
        *,
        label: str | None = None,
        note: str | None = None,
        teach: bool = False,
        policy: str | None = None,
    ) -> str | None:
        """Tell what a person decided, `allow` or `block`. Sent again, it counts once.

        Args:
            label: with `teach`, the class of the meme.
            teach: make the meme a case of the model's memory; needs the key of a reviewer.
            policy: rule of the memory by which it was judged.

        Returns:
            The id of the case.
        """
        about: dict[str, Any] = {"request_id": request_id, "action": action, "label": label, "note": note}
        if teach:
            about |= {"teach": True, "policy": policy}
        # Another label for the same meme is another request.
        key = sha256(repr((request_id, action, label, policy, teach)).encode()).hexdigest()
        case: str | None = self.ask("POST", "/v1/feedback", about, {"Idempotency-Key": key}).get("case")
        return case

    def submit(self, memes: Iterable[Mapping[str, Any]]) -> str:
        """Send a job of many memes, which are scored while nobody else asks; returns its id."""
        body = "".join(json.dumps(meme) + "\n" for meme in memes).encode()
        # Sent again over a broken connection, it is one job.
        about = {"Content-Type": "application/jsonl", "Idempotency-Key": uuid4().hex}
        job: dict[str, Any] = self.ask("POST", "/v1/jobs", body, about)
        return str(job["id"])

    def job(self, id: str) -> dict[str, Any]:
        """How far a job is: `state` (`running`, `done` or `stopped`), `items`, `done`, `failed`."""
        found: dict[str, Any] = self.ask("GET", f"/v1/jobs/{quote(id, safe='')}")
        return found

    def results(self, id: str) -> list[Answer | ServiceError]:
        """The results of a job that has ended, in the order of its memes.

        Raises:
            ServiceError: it is running, or there is no such job.
        """
        status, content = self._sent("GET", f"/v1/jobs/{quote(id, safe='')}/results", None, {})
        if status != 200:
            raise _refused(status, content)
        return [_either(json.loads(line)) for line in content.splitlines()]

    def cancel(self, id: str) -> None:
        """Stop a job, and forget its results."""
        self.ask("DELETE", f"/v1/jobs/{quote(id, safe='')}")

    def score_job(
        self,
        memes: Iterable[Mapping[str, Any]],
        *,
        pause: float = 1.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Answer | ServiceError]:
        """Send a job, wait for it, and return its results; the service forgets it then.

        Args:
            pause: seconds between two looks.
            progress: called with the number of finished memes and the total.

        Raises:
            ServiceError: the service refuses it, or was restarted meanwhile.
            OSError: there is no connection.
        """
        id = self.submit(memes)
        while True:
            job = self.job(id)
            if progress is not None:
                progress(job["done"], job["items"])
            if job["state"] != "running":
                break
            time.sleep(pause)
        found = self.results(id)
        self.cancel(id)
        return found

    def models(self) -> list[dict[str, Any]]:
        """The cards of all models."""
        cards: list[dict[str, Any]] = self.ask("GET", "/v1/models")["models"]
        return cards

    def reload(self, model: str) -> dict[str, str]:
        """Load a model again; needs the key of an administrator."""
        answer: dict[str, str] = self.ask("POST", f"/v1/models/{quote(model, safe='')}:reload")
        return answer

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send a request, again where the service asks for patience; returns the decoded answer.

        Args:
            body: bytes as they are, anything else as JSON.

        Raises:
            ServiceError: the service refuses it.
            OSError: there is no connection.
        """
        return _decoded(*self._sent(method, path, body, headers or {}))

    def _sent(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> tuple[int, bytes]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        about = {**self._headers, **({"Content-Type": "application/json"} if data else {}), **headers}
        for number in range(1, self._tries + 1):
            try:
                self._connection.request(method, self._base + path, data, about)
                response = self._connection.getresponse()
                content, status = response.read(LONGEST), response.status
            except (HTTPException, OSError) as error:
                # A service that was restarted has closed the connection. Scores are functions of the request
                # and feedback has its key, so that sending twice does no harm.
                self._connection.close()
                if number == self._tries or isinstance(error, TimeoutError):
                    raise error if isinstance(error, OSError) else OSError(str(error)) from error
                time.sleep(min(self._longest, 0.1 * 2**number))
                continue
            if status in PATIENT and number < self._tries:
                after = response.headers.get("Retry-After", "")
                time.sleep(min(self._longest, float(after) if after.isdigit() else 0.1 * 2**number))
                continue
            return status, content
        raise AssertionError("the last try returns or raises")


def meme_of(
    *,
    text: str | None = None,
    image: Path | str | bytes | None = None,
    image_key: str | None = None,
    model: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The JSON of a meme, see `Client.score`."""
    picture: dict[str, str] | None = None
    if image is not None:
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        picture = {"bytes": base64.b64encode(data).decode("ascii")}
    elif image_key is not None:
        picture = {"key": image_key}
    every = {"text": text, "image": picture, "model": model, "tags": None if tags is None else dict(tags)}
    return {name: value for name, value in every.items() if value is not None}


def _decoded(status: int, content: bytes) -> Any:
    if status not in DONE:
        raise _refused(status, content)
    try:
        return json.loads(content)
    except ValueError as error:
        raise ServiceError(status, "not-json", f"got {content[:80]!r}", {}) from error


def _refused(status: int, content: bytes) -> ServiceError:
    try:
        value = json.loads(content)
    except ValueError:
        # A proxy in between answers with a page.
        return ServiceError(status, "not-json", f"got {content[:80]!r}", {})
    return _error(status, value if isinstance(value, dict) else {})


def _either(one: Mapping[str, Any]) -> Answer | ServiceError:
    if one["result"] is not None:
        return _answer(one["result"])
    return _error(one["problem"]["status"], one["problem"])


def _error(status: int, problem: Mapping[str, Any]) -> ServiceError:
    errors = {one["pointer"]: one["detail"] for one in problem.get("errors") or ()}
    kind = str(problem.get("type", "")).rpartition("/")[2]
    return ServiceError(status, kind, str(problem.get("detail", "")), errors)


def _answer(value: Mapping[str, Any]) -> Answer:
    decision = value["decision"] or {}
    return Answer(
        request_id=value["request_id"],
        model=value["model"]["name"],
        answer=value["answer"],
        scores=value["scores"],
        action=decision.get("action"),
        probability=decision.get("probability"),
        why=decision.get("why", ""),
        text=value["read"]["text"],
        whole=value,
    )
