"""Scores from elsewhere: prompted models and moderation services, as JSON with one answer per line.

    {"id": 7, "p": 0.83}                                        a probability
    {"id": 7, "logprobs": {"Yes": -0.2, "No": -1.7}}            of answers; also a list of token, logprob
    {"id": 7, "verdict": "unsafe", "confidence": 0.9}           the confidence is that of the verdict
    {"id": 7, "results": [{"category_scores": {"hate": 0.7}}]}  of OpenAI's moderation; also its batch files

Further fields of a line are its origin: `model`, `prompt`, `price` and `seconds`. Several lines of one id are
prompts or samples; their mean log-odds count.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import expit, logit

from diptych.data.inputs import digest, file_checksum
from diptych.documents import parse_json, shorten
from diptych.ensemble.blend import EPSILON
from diptych.errors import ConfigError, FormatError, first_five, nearest
from diptych.files import require_file
from diptych.metrics.calibration import CLIP
from diptych.predictions import Predictions, respell

Form = Literal["probability", "log-probabilities", "verdict", "moderation"]
KEYS: dict[str, Form] = {
    "p": "probability",
    "logprobs": "log-probabilities",
    "verdict": "verdict",
    "results": "moderation",
}
"""The field that tells the form of a line."""
YES = ("yes", "true", "1", "unsafe", "harmful", "flagged", "block")
NO = ("no", "false", "0", "safe", "harmless", "allow")
MAX_LINE = 1 << 20  # bytes; the longest answer of a service has a few thousand
MAX_PROMPTS = 32  # more different ones hold the examples themselves and identify no model
PADDING = " \t\r\n.\"'\u2581\u0120"  # around a token; the last two are how tokenizers write a space


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One line of a file, without its id.

    Args:
        odds: log-odds of the positive class.
        bounded: whether the file has no log-probability of one of yes and no, so that a bound stands in.
        price: in the money of the file; None if it is not said. `seconds` likewise.
        prompt: SHA-256 of the prompt.
    """

    line: int
    odds: float
    bounded: bool
    model: str | None
    prompt: str | None
    price: float | None
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was read.

    Args:
        rows: number of lines.
        lacking: ids of the split without a line.
        bounded: number of lines with a log-probability of yes or no alone, see `Answer`.
        recorded: whether the prompts identify the model; False if they hold the examples.
    """

    predictions: Predictions
    form: Form
    rows: int
    lacking: tuple[str, ...]
    bounded: int
    recorded: bool


def read_foreign(
    path: Path,
    ids: Sequence[str],
    *,
    name: str,
    classes: tuple[str, str],
    categories: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
) -> Imported:
    """Read the answers of another program as predictions of two classes.

    Args:
        ids: of the split. Those without a line get no row.
        name: of the model; with the models, the prompts and the categories it makes the identity of the
            predictions.
        classes: names of the negative and the positive class; they are also understood as verdicts.
        categories: of a moderation service, whose highest score counts; by default all.
        about: further metadata.

    Raises:
        FormatError: a line is no such record or has another form than the first, an id is unknown, or a
            number is impossible; names file and line.
        ConfigError: categories are given for another form.
    """
    require_file(path, "a file of answers")
    form, answers = _answers(path, classes, categories)
    spelled = _spelled(path, answers, ids)
    kept = tuple(key for key in ids if key in spelled)
    every = [answer for key in kept for answer in spelled[key]]
    odds = {key: [answer.odds for answer in spelled[key]] for key in kept}
    scores = expit(np.array([np.mean(found) for found in odds.values()]))
    spread = {key: float(np.std(found, ddof=1)) for key, found in odds.items() if len(found) > 1}
    models, prompts = (sorted({v for a in every if (v := getattr(a, key))}) for key in ("model", "prompt"))
    recorded = len(prompts) <= MAX_PROMPTS
    known = {"form": form, "models": models, "prompts": prompts * recorded, "categories": sorted(categories)}
    paid = {key: _total(path, every, key) for key in ("price", "seconds")}
    predictions = Predictions(
        ids=kept,
        scores=np.stack((1 - scores, scores), axis=1),
        answers=tuple(classes[int(score >= 0.5)] for score in scores),
        classes=classes,
        meta={
            **(about or {}),
            "name": name,
            "imported": {**known, **paid, "rows": len(every), "checksum": file_checksum(path)},
            "spread": spread,
            # Not the checksum of the file: other splits are of the same model.
            "model": digest([name, known]),
        },
    )
    return Imported(
        predictions=predictions,
        form=form,
        rows=len(every),
        lacking=tuple(key for key in ids if key not in spelled),
        bounded=sum(answer.bounded for answer in every),
        recorded=recorded,
    )


def _spelled(path: Path, answers: Mapping[str, list[Answer]], ids: Sequence[str]) -> dict[str, list[Answer]]:
    """The answers by the ids of the split."""
    spelled = dict(zip(respell(tuple(answers), ids), answers.values(), strict=True))
    if unknown := sorted(spelled.keys() - set(ids), key=lambda key: spelled[key][0].line):
        raise FormatError(
            f"{path}:{spelled[unknown[0]][0].line}: id {shorten(unknown[0])} is not among the {len(ids)} "
            f"examples of the split; {len(unknown)} id(s) are not: {first_five(map(shorten, unknown))}. "
            "Import the answers of each split by themselves."
        )
    return spelled


def _answers(
    path: Path, classes: tuple[str, str], categories: Sequence[str]
) -> tuple[Form, dict[str, list[Answer]]]:
    form: Form | None = None
    first = 0
    answers: dict[str, list[Answer]] = {}
    for line, record in _records(path):
        where = f"{path}:{line}"
        record = _unwrapped(record, where)
        key, found = _id(record, where), _form(record, where)
        if form is None:
            form, first = found, line
            if categories and form != "moderation":
                raise ConfigError(f"{where}: a {form} has no categories; leave --categories out.")
        if found != form:
            raise FormatError(
                f"{where}: a {found}, but line {first} is a {form}; expected one form in a file. Divide it."
            )
        odds, bounded = _odds(record, form, where, classes=classes, categories=categories)
        answers.setdefault(key, []).append(
            Answer(
                line=line,
                odds=odds,
                bounded=bounded,
                model=_text(record, "model", where),
                prompt=_prompt(record, where),
                price=_optional(record, "price", where),
                seconds=_optional(record, "seconds", where),
            )
        )
    if form is None:
        raise FormatError(f"{path}: has no answers; expected one JSON object per line, such as {_EXAMPLE}.")
    return form, answers


_EXAMPLE = '{"id": 7, "p": 0.83}'


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    # Binary lines end at a line feed only; a text may contain other separators.
    with open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            where = f"{path}:{number}"
            if len(line) == MAX_LINE:
                raise FormatError(f"{where}: more than {MAX_LINE:,} bytes in a line; expected one answer.")
            content = line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip()
            if not content:
                continue
            record = parse_json(content, where=where, advice="Expected one JSON object per line.")
            if not isinstance(record, dict):
                raise FormatError(f"{where}: {shorten(record)}; expected a JSON object, such as {_EXAMPLE}.")
            yield number, record


def _unwrapped(record: dict[str, Any], where: str) -> dict[str, Any]:
    """The answer of a line of OpenAI's batch files, which is wrapped in that of the request."""
    if "custom_id" not in record:
        return record
    response = record.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    if not isinstance(body, dict) or record.get("error") or "results" not in body:
        raise FormatError(
            f"{where}: the request {shorten(record['custom_id'])} has no results "
            f"({shorten(record.get('error'))}). Ask again, or remove the line."
        )
    return {**body, "id": record["custom_id"]}


def _id(record: Mapping[str, Any], where: str) -> str:
    value = record.get("id")
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise FormatError(f"{where}: id is {shorten(value)}; expected the id of an example.")
    return str(value).strip()


def _form(record: Mapping[str, Any], where: str) -> Form:
    found = [form for key, form in KEYS.items() if key in record]
    if len(found) != 1:
        raise FormatError(
            f"{where}: {'several of' if found else 'none of'} the fields {', '.join(KEYS)}; expected one of "
            f"them, such as {_EXAMPLE}."
        )
    return found[0]


def _odds(
    record: Mapping[str, Any],
    form: Form,
    where: str,
    *,
    classes: tuple[str, str],
    categories: Sequence[str],
) -> tuple[float, bool]:
    """Log-odds of the positive class, and whether they are a bound."""
    if form == "log-probabilities":
        return _of_tokens(record["logprobs"], where)
    if form == "moderation":
        return _log_odds(_highest(record["results"], categories, where)), False
    if form == "probability":
        return _log_odds(_number(record["p"], "p", where, high=1.0)), False
    positive = _positive(record["verdict"], classes, where)
    confidence = _number(record.get("confidence"), "confidence", where, high=1.0)
    return _log_odds(confidence if positive else 1 - confidence), False


def _log_odds(probability: float) -> float:
    return float(logit(min(max(probability, EPSILON), 1 - EPSILON)))


def _of_tokens(given: Any, where: str) -> tuple[float, bool]:
    """Log-odds of yes against no, each summed over its spellings."""
    if isinstance(given, list):  # as OpenAI's `top_logprobs`
        if not all(isinstance(one, dict) and isinstance(one.get("token"), str) for one in given):
            raise FormatError(f"{where}: logprobs is {shorten(given)}; expected token and logprob of each.")
        pairs = [(one["token"], one.get("logprob")) for one in given]
    elif isinstance(given, dict):
        pairs = list(given.items())
    else:
        raise FormatError(f"{where}: logprobs is {shorten(given)}; expected log-probabilities by token.")
    listed = [
        (
            token.strip(PADDING).lower(),
            _number(value, f"logprob of {shorten(token)}", where, low=-np.inf, high=0.0),
        )
        for token, value in pairs
    ]
    sums = [
        np.logaddexp.reduce([value for token, value in listed if token == word], initial=-np.inf)
        for word in ("yes", "no")
    ]
    known = np.isfinite(sums)
    if not known.any() or (len(listed) < 2 and not known.all()):
        raise FormatError(
            f"{where}: logprobs has {shorten([token for token, _ in pairs])}; expected those of yes and no."
        )
    # What is not listed is at most as probable as the last of the list, and as what the list leaves: the
    # upper bound is taken, which claims the least.
    left = 1 - sum(np.exp([value for _, value in listed]))
    least = min(*(value for _, value in listed), float(np.log(max(left, CLIP))))
    yes, no = (float(value) if there else least for value, there in zip(sums, known, strict=True))
    return yes - no, not known.all()


def _positive(verdict: Any, classes: tuple[str, str], where: str) -> bool:
    # JSON's true is "True" in Python.
    word = str(verdict).strip().lower() if isinstance(verdict, str | int) else ""
    # The data set's own words first: some call the harmless class "yes".
    if word in (named := [name.lower() for name in classes]):
        return named.index(word) == 1
    if word in (*YES, *NO):
        return word in YES
    known = sorted({*YES, *NO, *classes})
    raise FormatError(
        f"{where}: verdict is {shorten(verdict)}; expected one of {', '.join(known)}.{nearest(word, known)}"
    )


def _highest(results: Any, categories: Sequence[str], where: str) -> float:
    """The highest score of the categories."""
    one = results[0] if isinstance(results, list) and len(results) == 1 else None
    scores = one.get("category_scores") if isinstance(one, dict) else None
    if not isinstance(scores, dict) or not scores:
        raise FormatError(f"{where}: results is {shorten(results)}; expected one, with category_scores.")
    if unknown := [name for name in categories if name not in scores]:
        raise FormatError(
            f"{where}: there is no category {unknown[0]!r}; expected of {', '.join(sorted(scores))}."
            f"{nearest(unknown[0], scores)}"
        )
    return max(_number(scores[name], f"score of {name}", where, high=1.0) for name in categories or scores)


def _number(value: Any, what: str, where: str, *, low: float = 0.0, high: float = np.inf) -> float:
    # Python takes true for 1.
    number = float("nan") if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    if not (low <= number <= high and np.isfinite(number)):
        limits = "a number of at least 0" if high == np.inf else f"a number from {low:g} to {high:g}"
        raise FormatError(f"{where}: {what} is {shorten(value)}; expected {limits}.")
    return number


def _optional(record: Mapping[str, Any], key: str, where: str) -> float | None:
    return None if record.get(key) is None else _number(record[key], key, where)


def _text(record: Mapping[str, Any], key: str, where: str) -> str | None:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise FormatError(f"{where}: {key} is {shorten(value)}; expected a text.")
    return value or None


def _prompt(record: Mapping[str, Any], where: str) -> str | None:
    # The hash alone: a prompt may hold what its author does not publish.
    text = _text(record, "prompt", where)
    return None if text is None else sha256(text.encode()).hexdigest()


def _total(path: Path, answers: Collection[Answer], key: str) -> float | None:
    """Sum over all lines; None if no line says it."""
    values = {answer.line: getattr(answer, key) for answer in answers}
    silent = sorted(line for line, value in values.items() if value is None)
    if len(silent) == len(values):
        return None
    if silent:
        raise FormatError(
            f"{path}:{silent[0]}: no {key}, as in {len(silent)} of {len(values)} lines; expected it in all "
            "or none."
        )
    return float(sum(values.values()))
