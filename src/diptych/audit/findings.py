"""What an audit finds, as sentences: what makes a number unbelievable, what to read with care, what holds."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from diptych.check import Finding

if TYPE_CHECKING:
    from diptych.audit.audit import Audit

UNSEEN = 0.02  # share of shared examples up to which a split counts as unseen: twins are found by likeness
LARGE = 0.1  # share of examples with a twin in training from which a score may be memory


def findings_of(audit: "Audit") -> tuple[Finding, ...]:
    """The findings, the gravest first.

    An error makes a number unbelievable. A warning says how to read it. A note is a fact that helps.
    """
    order = ("error", "warning", "note")
    found = [*_overlaps(audit), *_labels(audit), *_blind(audit), *_judged(audit), *_looks(audit)]
    # Sorting is stable: within a severity, findings keep the order of the page.
    return tuple(sorted(found, key=lambda one: order.index(one.severity)))


def _overlaps(audit: "Audit") -> Iterator[Finding]:
    for one in audit.overlaps:
        where = f"{one.first} and {one.second}"
        if one.first == one.second:
            yield Finding(
                severity="note",
                what=f"copies inside of {one.first}",
                count=one.copies,
                examples=one.examples,
                advice="Intervals take examples as independent; with copies they are too narrow.",
            )
            continue
        if one.ids:
            yield Finding(
                severity="note" if one.known else "error",
                what=f"examples in both {where}",
                count=one.ids,
                examples=(),
                advice="Known of this benchmark; do not train on one split and evaluate on the other."
                if one.known
                else "A score on them is no score of new examples; remove them from one split.",
            )
        if one.copies:
            yield Finding(
                # A copy of a training example may be remembered. Between other splits it only counts twice.
                severity="error" if one.first == audit.train else "warning",
                what=f"copies (text and picture) in both {where}",
                count=one.copies,
                examples=one.examples,
                advice=f"{one.contradicting} of them have another label. Remove them from one split; for "
                "Hateful Memes `diptych clean` does it.",
            )
        for what, count in (("pictures", one.pictures), ("texts", one.texts)):
            # Twins help only what was trained on one of them.
            if count > UNSEEN * one.count and one.first == audit.train:
                yield Finding(
                    severity="warning" if count > LARGE * one.count else "note",
                    what=f"examples of {one.second} whose {what[:-1]} is in {one.first}",
                    count=count,
                    examples=(),
                    advice=f"{count / one.count:.0%} of the split: there, it measures no new {what}.",
                )
    for row in audit.contract:
        # A promise in the name, such as test_unseen of Hateful Memes.
        if "unseen" in row.split and row.seen > UNSEEN:
            yield Finding(
                severity="warning",
                what=f"{row.split} is called unseen, but shares pictures, texts or copies with {audit.train}",
                count=round(row.seen * row.examples),
                examples=(),
                advice="Say what is unseen in it before you report its score.",
            )


def _labels(audit: "Audit") -> Iterator[Finding]:
    if not any(row.release != "withheld" for row in audit.contract):
        yield Finding(
            severity="warning",
            what="splits without labels",
            count=len(audit.contract),
            examples=tuple(row.split for row in audit.contract),
            advice="Baselines, confounders and ceilings need labels; only copies were looked for.",
        )
    for ceiling in audit.ceilings:
        known = not math.isnan(ceiling.error)
        reach = f"accuracy {ceiling.accuracy:.3f}" + (
            "" if math.isnan(ceiling.auroc) else f", AUROC {ceiling.auroc:.3f}"
        )
        yield Finding(
            severity="warning" if ceiling.agreement.value < 0.9 else "note",
            what=f"labels that disagree ({ceiling.source})",
            count=ceiling.disagreeing,
            examples=(f"{ceiling.disagreeing} of {ceiling.count}", f"kappa {ceiling.kappa.value:.2f}"),
            advice=f"A model that knows the truth would reach {reach} against labels with this noise; do not "
            "compare models above that."
            if known
            else "Half of the labels disagree: nothing can be measured against them.",
        )
    for one in audit.confounded:
        if one.both and one.split != audit.train:
            yield Finding(
                severity="note",
                what=f"examples of {one.split} with confounders on both sides",
                count=one.both,
                examples=(),
                advice=f"{one.both / one.count:.0%} of the split: there, neither side alone decides.",
            )


def _blind(audit: "Audit") -> Iterator[Finding]:
    for one in audit.baselines:
        if one.blind_enough:
            yield Finding(
                severity="warning",
                what=f"{one.reads} alone is above chance on {one.split}",
                count=1,
                examples=(f"{one.value.value:.3f} [{one.value.low:.3f}, {one.value.high:.3f}]",),
                advice="So much of a score needs no other side; report it beside every model.",
            )


def _judged(audit: "Audit") -> Iterator[Finding]:
    for one in audit.judged:
        if one.blind is not None:
            reads, gap = one.blind
            # The test has two sides: a model that is clearly worse has a small p, too.
            if gap.p >= 0.05 or gap.difference <= 0:
                yield Finding(
                    severity="error",
                    what=f"{one.file} is not shown to be better than {reads} alone on {one.split}",
                    count=1,
                    examples=(
                        f"difference {gap.difference:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}], p {gap.p:.3f}",
                    ),
                    advice="Its score does not show that the model uses both sides.",
                )
        for side, share in one.ordered.items():
            # The side that both of a pair share gives them one score: alone, it orders no pair.
            if share.low <= 0.5:
                yield Finding(
                    severity="warning",
                    what=f"{one.file} does not order confounders with the same {side}",
                    count=1,
                    examples=(f"{share.value:.0%} of the pairs [{share.low:.0%}, {share.high:.0%}]",),
                    advice=f"One half is chance: what differs beside the {side} does not reach its score.",
                )
        worst = [each for each in one.slices if min(each.missed_p, each.wrongly_blocked_p) < 0.05]
        if worst:
            yield Finding(
                severity="warning",
                what=f"groups in which {one.file} errs more or less than in the rest",
                count=len(worst),
                examples=tuple(f"{each.column}: {each.group}" for each in worst[:5]),
                advice="Report the error rates of these groups beside the whole.",
            )


def _looks(audit: "Audit") -> Iterator[Finding]:
    for one in audit.looks:
        total = one.validations + one.files
        # One look chooses nothing.
        if total < 2:
            continue
        high = (
            ""
            if math.isnan(one.most)
            else f"; by up to {one.optimism:.3f} over the runs, {one.most:.3f} over all"
        )
        yield Finding(
            severity="warning" if one.most > 0.01 else "note",
            what=f"looks at {one.split}",
            count=total,
            examples=(f"{one.runs} runs, {one.validations} validations, {one.files} prediction files",),
            advice=f"The best of many looks flatters{high}. Report a split that chose nothing.",
        )
