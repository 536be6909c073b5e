"""The page of an audit: what can be believed, first; then the tables behind it."""

import math
from collections.abc import Iterator
from pathlib import Path

from diptych import __version__
from diptych.audit import Audit, Judged
from diptych.calibrate import Slice
from diptych.metrics import measure_named
from diptych.report.markup import interval, interval_figure, paragraph, plain, section, table, write_page


def audit_page(audit: Audit, path: Path | str) -> None:
    """Write an audit as one HTML file without scripts."""
    note = f"{audit.data}, audited by diptych {__version__}; this file needs no network"
    write_page(
        path, "".join(audit_sections(audit)), kind="audit", title=f"Audit of {audit.root.name}", note=note
    )


def audit_sections(audit: Audit) -> Iterator[str]:
    """The sections of an audit as HTML; those without content are left out."""
    yield section("What can be believed", _findings(audit))
    yield section("Splits", _contract(audit))
    if audit.overlaps:
        yield section("What splits share", *_overlaps(audit))
    if audit.confounded:
        yield section("Confounders", *_confounded(audit))
    if audit.baselines:
        yield section("Blind baselines", *_baselines(audit))
    if audit.ceilings:
        yield section("Noise of the labels", *_ceilings(audit))
    for one in audit.judged:
        yield section(f"Scores of {one.file} on {one.split}", *_judged(one))
    if audit.looks:
        yield section("How often a split was looked at", *_looks(audit))
    if audit.skipped:
        yield section("What was not measured", *map(paragraph, audit.skipped))


def _findings(audit: Audit) -> str:
    if not audit.findings:
        return paragraph("Nothing speaks against the numbers on this data set.")
    items = []
    for one in audit.findings:
        # `bdi` below: a text of a stranger in a script from right to left must not reorder the line.
        found = f": {', '.join(one.examples)}" if one.examples else ""
        items.append(
            f'<li class="{one.severity}"><p><b>{one.severity}</b> '
            f'<bdi dir="auto">{plain(one.what)}</bdi> ({one.count:,}){plain(found)}</p>'
            f"{paragraph(one.advice, note=True)}</li>"
        )
    return f'<ol class="findings">{"".join(items)}</ol>'


def _contract(audit: Audit) -> str:
    rows = [
        (
            row.split,
            f"{row.examples:,}",
            # Of several labels, combinations can be hundreds.
            ", ".join(f"{count:,} {label}" for label, count in sorted(row.labels.items())[:6]),
            row.release,
            "" if math.isnan(row.seen) else f"{row.seen:.1%}",
        )
        for row in audit.contract
    ]
    head = ("split", "examples", "labels", "labels are", f"seen in {audit.train}")
    return table(head, rows, numbers={1, 4})


def _overlaps(audit: Audit) -> Iterator[str]:
    head = ("splits", "examples", "same id", "copies", "with another label", "picture twins", "text twins")
    rows = [
        (
            f"{one.second} in {one.first}" if one.first != one.second else f"inside of {one.first}",
            *(f"{n:,}" for n in (one.count, one.ids, one.copies, one.contradicting, one.pictures, one.texts)),
        )
        for one in audit.overlaps
    ]
    yield table(head, rows, numbers=range(1, 7))
    yield paragraph(
        "A copy has the same text and the same picture. A picture twin has the same picture under whatever "
        "words, a text twin the same words. Sameness is likeness: a few twins are chance.",
        note=True,
    )


def _confounded(audit: Audit) -> Iterator[str]:
    rows = [
        (
            one.split,
            f"{one.count:,}",
            *(f"{n / one.count:.1%}" for n in (one.by_picture, one.by_text, one.both)),
        )
        for one in audit.confounded
    ]
    head = ("split", "labeled", "same picture, other label", "same text, other label", "both")
    yield table(head, rows, numbers=range(1, 5))
    yield paragraph("Where both exist, neither side alone can decide.", note=True)


def _baselines(audit: Audit) -> Iterator[str]:
    titles = {one.measure for one in audit.baselines}
    named = [(f"{one.reads} alone, {one.split}", one.value) for one in audit.baselines]
    chances = {one.chance for one in audit.baselines}
    what = f"{' and '.join(measure_named(name).title for name in sorted(titles))} of models that see one side"
    # One line in the figure can mark one chance only; that of accuracies differs between splits.
    chance = chances.pop() if len(chances) == 1 else None
    said = "; the dashed line is chance" if chance is not None else ""
    yield interval_figure(named, f"{what}, with 95 % intervals{said}", chance=chance)
    trained = sorted({one.trained for one in audit.baselines})
    how = "linear models of words and pairs of words, colors of areas, and mean region features"
    yield paragraph(f"Trained on {', '.join(trained)}: {how}. A larger model may reach more.", note=True)


def _ceilings(audit: Audit) -> Iterator[str]:
    head = ("labels of", "pairs", "agree", "kappa", "best accuracy", "best AUROC", "one label by the other")
    rows = [
        (
            one.source,
            f"{one.count:,}",
            interval(one.agreement),
            interval(one.kappa),
            *("" if math.isnan(n) else f"{n:.3f}" for n in (one.accuracy, one.auroc, one.annotator)),
        )
        for one in audit.ceilings
    ]
    yield table(head, rows, numbers=range(1, 7))
    yield paragraph(
        "Best: of a model that knows the truth, if the two labels err independently. The last column is the "
        "AUROC of one label, taken as a score, against the other.",
        note=True,
    )


def _judged(one: Judged) -> Iterator[str]:
    yield paragraph(f"{measure_named(one.measure).title} {interval(one.value)} on {one.count:,} examples.")
    if one.blind is not None:
        reads, gap = one.blind
        # A printed p of 0.000 would claim certainty.
        p = "below 0.001" if gap.p < 0.001 else f"{gap.p:.3f}"
        yield paragraph(
            f"Minus {reads} alone ({gap.second:.3f}): {gap.difference:+.3f} "
            f"[{gap.low:+.3f}, {gap.high:+.3f}], p {p}."
        )
    if one.ordered:
        rows = [(f"same {side}", interval(share)) for side, share in one.ordered.items()]
        yield table(("pairs of confounders", "positive one scores higher"), rows, numbers={1})
    for column in dict.fromkeys(each.column for each in one.slices):
        yield _slices(column, [each for each in one.slices if each.column == column])


def _slices(column: str, slices: list[Slice]) -> str:
    head = (column, "examples", "prevalence", "AUROC", "missed", "p", "wrongly blocked", "p", "reviewed")
    rows = [
        (
            each.group,
            f"{each.count:,}",
            f"{each.prevalence.value:.2f}",
            interval(each.auroc, 2),
            interval(each.missed, 2),
            "" if math.isnan(each.missed_p) else f"{each.missed_p:.3f}",
            interval(each.wrongly_blocked, 2),
            "" if math.isnan(each.wrongly_blocked_p) else f"{each.wrongly_blocked_p:.3f}",
            f"{each.reviewed.value:.2f}",
        )
        for each in slices
    ]
    return table(head, rows, numbers=range(1, 9))


def _looks(audit: Audit) -> Iterator[str]:
    head = (
        "split",
        "runs",
        "validations",
        "prediction files",
        "best",
        "by luck, runs",
        "by luck, validations",
    )
    rows = [
        (
            one.split,
            *(f"{n:,}" for n in (one.runs, one.validations, one.files)),
            "" if math.isnan(one.best) else f"{one.measure} {one.best:.3f}",
            *("" if math.isnan(n) else f"up to {n:.3f}" for n in (one.optimism, one.most)),
        )
        for one in audit.looks
    ]
    yield table(head, rows, numbers=range(1, 7))
    yield paragraph(
        "By luck: how much the best of so many independent, equally good models exceeds its true value. Runs "
        "and checkpoints are alike, so the true gain is smaller.",
        note=True,
    )
