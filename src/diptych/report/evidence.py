"""A page that explains one decision: one HTML file with everything inside, without scripts."""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from diptych.explain import MASKING, Change, Evidence, probability
from diptych.files import atomic_file
from diptych.memory import Recall
from diptych.report.areas import letters, picture_figure
from diptych.report.markup import plain, table, write_page

SHOWN = 6  # words whose contribution is printed below them
NAME = 60  # characters of a name in tables and sentences
LONGEST = 10_000  # characters of a text on the page
MINUS = "\N{MINUS SIGN}"


def evidence_page(
    why: Evidence,
    path: Path | str,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    members: Mapping[str, float] | None = None,
    truth: str | None = None,
    policy: tuple[str, str] | None = None,
    threshold: str | None = None,
    recall: Recall | None = None,
) -> None:
    """Write the page of one decision.

    Args:
        title: of the model, such as the name of its run.
        facts: what else identifies model and input, by name.
        members: of a study, the probability that each member gives.
        truth: the true answer, if it is known.
        policy: what a policy makes of the decision, such as `review`, and why: probability and thresholds.
        threshold: when the model gives which answer, where that is not simply the likeliest class.
        recall: what a memory says to the example.
    """
    style, template = (
        (files("diptych.report") / f"evidence.{ending}").read_text(encoding="utf-8")
        for ending in ("css", "html")
    )
    of = "" if why.explained == why.answer else f" of {plain(why.explained)}"
    sure, band = f"probability{of} {probability(why.both):.2f}", ""
    if threshold is not None:
        band = f"<p>{plain(threshold)}</p>"
    if policy is not None:
        # Two probabilities, which may be of two classes: first what is done, then whose each of them is.
        scored = f"{plain(why.explained)} {probability(why.both):.2f}"
        band += f"<p>calibrated probability of {plain(policy[1])}; uncalibrated: {scored}</p>"
        sure = plain(policy[0])
    known = ""
    if truth is not None:
        known = f" \N{MIDDLE DOT} {'right' if truth == why.answer else 'wrong'}: the label is {plain(truth)}"
    values = {
        "title": f"{plain(why.answer)}: {plain(why.id)}",
        "style": style,
        "verdict": f"{plain(why.answer)} \N{MIDDLE DOT} {sure}",
        "band": band,
        "short": plain(in_short(why)),
        "identity": f"{plain(why.id)} \N{MIDDLE DOT} {plain(title)}{known}",
        "picture": picture_figure(why),
        "words": _words(why),
        "sides": _sides(why),
        "changes": _changes(why),
        "memory": _memory(recall),
        "members": _members(members or {}),
        "parts": _parts(why),
        "trust": _trust(why),
        "facts": table(("what", "value"), [(name, value) for name, value in (facts or {}).items()]),
    }
    # One pass, so that braces in what is filled in stay as they are.
    page = re.sub(r"\{(\w+)\}", lambda match: values[match[1]], template)
    with atomic_file(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(page)


def in_short(why: Evidence) -> str:
    """Say in one sentence, made of numbers and names only, what decided."""
    if not why.players:
        return "There is nothing to hide, so there is no evidence to weigh."
    if why.default:
        return f"The model answers {why.answer!r} without any evidence, too: nothing changed its default."
    names = letters(why)
    # Once each: a word that occurs twice may be both that count most.
    # Of those with a number in the text alone, or the sentence would name a word without a mark.
    strongest = why.ranked(text=True)[:SHOWN]
    said = dict.fromkeys(why.players[n].name[:NAME] for n in strongest if _supports(why, n))
    words = [*said][:2]
    areas = [names[n] for n in why.ranked(text=False) if n in names and _supports(why, n)][:2]
    some = [
        " and ".join(f"\N{LEFT DOUBLE QUOTATION MARK}{one}\N{RIGHT DOUBLE QUOTATION MARK}" for one in words)
    ]
    some += [f"picture area{'s' * (len(areas) > 1)} {' and '.join(areas)}"] if areas else []
    alone = [
        side
        for side, value in (("the text", why.text_only), ("the picture", why.picture_only))
        # Log-odds above 0: this side alone would give the answer, too.
        if value > 0 and why.both > 0
    ]
    told = f"{' or '.join(alone)} alone would be enough" if alone else "neither side alone is enough"
    return f"Most in favor: {', '.join(filter(None, some)) or 'nothing'}; {told}."


def _supports(why: Evidence, number: int) -> bool:
    """Whether a player is worth naming: it supports the answer, and not far less than others of its side."""
    values = why.contributions.values
    own = values[why.of_text == why.of_text[number]]
    # Far below the strongest of its side, a player is not worth a place in one sentence.
    return bool(values[number] > 0 and values[number] >= own.max() / 4)


def _words(why: Evidence) -> str:
    """The text; words that contribute most have a line, a sign and a number."""
    strongest = set(why.ranked(text=True)[:SHOWN])
    parts = []
    for segment, text in enumerate((why.text, why.text_b or "")):
        text, at, shown = text[:LONGEST], 0, []
        spans = sorted(
            (start, stop, n)
            for n, player in enumerate(why.players)
            for of, start, stop in player.spans
            if of == segment and player.kind == "word"
        )
        for start, stop, number in spans:
            shown += [plain(text[at:start]), _word(why, number, text[start:stop], number in strongest)]
            # Beyond LONGEST, slices of the text are empty, so players that lie there show nothing.
            at = stop
        parts.append("".join([*shown, plain(text[at:])]))
    texts = "".join(f'<p class="words"><bdi dir="auto">{one}</bdi></p>' for one in parts if one)
    if not texts:
        return "<p>no text</p>"
    return (
        f'{texts}<p class="note">Solid line and +: for the answer. Dashed line and {MINUS}: against it.</p>'
    )


def _word(why: Evidence, number: int, word: str, strong: bool) -> str:
    value = why.contributions.values[number]
    if not strong:
        return f'<span title="{_signed(value)}">{plain(word)}</span>'
    side = "for" if value > 0 else "against"
    return f'<span class="word {side}"><b>{plain(word)}</b><small>{_signed(value)}</small></span>'


def _sides(why: Evidence) -> str:
    share = why.text_share
    bar = "<p>Neither side contributes.</p>"
    if share is not None:
        said = f"text {share:.0%}, picture {1 - share:.0%}"
        bar = (
            f'<p>{said} of all contributions</p><div class="bar" role="img" aria-label="{said}">'
            f'<i class="text" style="width:{share:.1%}"></i><i class="picture"></i></div>'
        )
    rows = [
        ("text alone", why.text_only),
        ("picture alone", why.picture_only),
        ("both together", why.both),
        ("neither", why.neither),
    ]
    shares = table(
        ("shown", f"probability of {why.explained}"),
        [(name, f"{probability(value):.2f}") for name, value in rows],
        numbers={1},
    )
    return f"{bar}{shares}<p>only both together tell: {_signed(why.interaction)} log-odds</p>"


def _changes(why: Evidence) -> str:
    if not why.changes:
        return "<p>Nothing that was tried changes the answer.</p>"
    rows = [
        (
            _said(why, one),
            f"{probability(one.value):.2f}",
            "changes the answer" if one.flips else "same answer",
        )
        for one in why.changes
    ]
    return table(("variant", f"probability of {why.explained}", "effect"), rows, numbers={1})


def _said(why: Evidence, change: Change) -> str:
    if change.kind == "picture":
        return f"the picture of {change.other}"
    if change.kind == "text":
        return f"the text of {change.other}: {change.text[:200]}"
    names = letters(why)
    parts = [f"area {names[n]}" if n in names else repr(why.players[n].name[:NAME]) for n in change.players]
    return f"without {', '.join(parts)}"


def _members(members: Mapping[str, float]) -> str:
    if not members:
        return ""
    rows = [(name, f"{value:.2f}") for name, value in members.items()]
    listed = table(("model", "probability"), rows, numbers={1})
    return f'<section class="wide"><h2>Members</h2>{listed}</section>'


def _memory(recall: Recall | None) -> str:
    if recall is None:
        return ""
    rows = [
        (
            one.case.id,
            one.case.label,
            one.case.policy,
            f"{one.similarity:.2f}",
            _signed(one.contribution) if one.contribution else "no vote",
            one.case.text[:200],
        )
        for one in recall.cases
    ]
    head = ("case", "label", "policy", "similarity", "log-odds for its label", "text")
    scores = ", ".join(
        f"{plain(name)} {score:.2f} (model alone {recall.before[name]:.2f})"
        for name, score in recall.scores.items()
    )
    cases = table(head, rows, numbers={3, 4}) if rows else "<p>The memory has no cases.</p>"
    return (
        f'<section class="wide"><h2>Because of these cases</h2><p>With the memory: {scores}.</p>{cases}'
        '<p class="note">All else on this page is about the model alone.</p></section>'
    )


def _parts(why: Evidence) -> str:
    # All of them, with their errors, so that nobody has to believe the sentence on top.
    names, rows = letters(why), []
    # As shares: relevance has no scale, and of a model that is sure all of it is tiny.
    whole = 0.0 if why.relevance is None else float(why.relevance.sum())
    for n in [*why.ranked(text=True), *why.ranked(text=False)]:
        player = why.players[n]
        looked = "" if why.relevance is None else f"{why.relevance[n] / (whole or 1):.1%}"
        error = why.contributions.errors[n]
        rows.append(
            (
                f"{player.kind} {names.get(n, '')}".strip(),
                player.name[:NAME] or "no name",
                _signed(why.contributions.values[n]),
                f"{error:.2f}",
                looked,
            )
        )
    return table(
        ("kind", "name", "contribution", "standard error", "share of attention relevance"),
        rows,
        numbers={2, 3, 4},
    )


def _trust(why: Evidence) -> str:
    found = why.contributions
    how = f"{found.permutations} permutations and their reverse" if found.permutations else "all combinations"
    return (
        f"<p>Contributions are Shapley values of the log-odds of {plain(why.explained)}, from {how} "
        f"({found.evaluations} variants, seed {why.budget.seed}): {plain(MASKING)}. Another way of hiding "
        "gives other numbers. They sum to the difference between showing everything and nothing.</p>"
        "<p>Attention relevance is never negative: it cannot tell support from opposition. It shows where "
        "the model looked, not why it decided.</p>"
    )


def _signed(value: float) -> str:
    """A number with its sign; what rounds to 0 has none."""
    text = f"{abs(value):.2f}"
    return text if text == "0.00" else f"{'+' if value > 0 else MINUS}{text}"


def index_page(found: Sequence[Evidence], path: Path | str, *, pages: Sequence[Path], title: str) -> None:
    """Write a list of explained decisions with links to their pages, which lie beside it."""
    rows = "".join(
        # First as a URL, then as HTML: an id may hold characters that mean something in both.
        f'<tr><td><a href="{plain(quote(page.name))}">{plain(why.id)}</a></td><td>{plain(why.answer)}</td>'
        f'<td class="number">{probability(why.both):.2f}</td><td>{plain(why.text[:80])}</td>'
        f"<td>{plain(in_short(why))}</td></tr>"
        for why, page in zip(found, pages, strict=True)
    )
    head = "".join(f'<th scope="col">{one}</th>' for one in ("id", "answer", "score", "text", "in short"))
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    write_page(path, body, kind="explanation", title=f"{len(found)} decisions of {title}")
