"""An explanation as JSON, for auditors and other programs."""

from typing import Any, cast

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from diptych.documents import closed
from diptych.explain.evidence import Evidence
from diptych.explain.variants import MASKING, probability

# The number tells programs which fields to expect.
FORMAT = "diptych.explanation/1"
# Part of every file, because an explanation travels without this documentation.
LIMITS = (
    "Values describe this model, not the world: what counts for it may be wrong.",
    f"Hidden means: {MASKING}. The numbers depend on it.",
    "Examples with hidden parts are unlike those of the training.",
)


@closed
class Part(TypedDict):
    """A word, or a group of regions. `boxes` are shares of the picture's width and height."""

    kind: str
    name: str
    spans: list[tuple[int, int, int]]
    boxes: list[tuple[float, ...]]
    picture: int
    contribution: float
    standard_error: float | None
    relevance: float | None


@closed
class Sides(TypedDict):
    """Log-odds of the explained class, and MM-SHAP's shares."""

    t_shap: float | None
    v_shap: float | None
    both: float
    text_only: float
    picture_only: float
    none: float
    interaction: float


@closed
class Tried(TypedDict):
    """A change that was tried; `players` are numbers in `parts`."""

    kind: str
    players: list[int]
    other: str
    before: float
    after: float
    flips: bool


@closed
class Remembered(TypedDict):
    """A case of a memory; `contribution` is the log-odds that it adds for its label."""

    id: str
    label: str
    policy: str
    text: str
    picture: str
    similarity: float
    contribution: float


@closed
class Recalled(TypedDict):
    """What a memory adds to the model: the scores with it, and by the model alone."""

    scores: dict[str, float]
    before: dict[str, float]
    cases: list[Remembered]


@closed
class Explanation(TypedDict):
    """Content of an explanation; equal inputs and seeds give equal content."""

    format: str
    id: str
    model: dict[str, str]
    text: str
    text_b: str | None
    answer: str
    explained: str
    scores: dict[str, float]
    members: dict[str, float]
    memory: Recalled | None
    default_without_evidence: bool
    method: str
    masking: str
    permutations: int
    evaluations: int
    seed: int
    parts: list[Part]
    sides: Sides
    changes: list[Tried]
    limits: list[str]


def explanation(
    why: Evidence,
    *,
    model: dict[str, str] | None = None,
    members: dict[str, float] | None = None,
    memory: Recalled | dict[str, Any] | None = None,
) -> Explanation:
    """Return an explanation as JSON values; all numbers are finite.

    Args:
        model: what identifies the model, such as its name and checksum.
        members: of a study, the probability that each member gives.
        memory: what a memory says; the values of `parts` are of the model without it.
    """
    # A change tells probabilities, although all other values are log-odds: people compare these at a glance.
    before = probability(why.both)
    found = why.contributions
    return Explanation(
        format=FORMAT,
        id=why.id,
        model=model or {},
        text=why.text,
        text_b=why.text_b,
        answer=why.answer,
        explained=why.explained,
        scores=why.scores,
        members=members or {},
        memory=cast(Recalled | None, memory),
        default_without_evidence=why.default,
        # Without permutations, all coalitions were evaluated.
        method="exact Shapley values"
        if not found.permutations
        else "Shapley values, antithetic permutations",
        masking=MASKING,
        permutations=found.permutations,
        evaluations=found.evaluations,
        seed=why.budget.seed,
        parts=_parts(why),
        sides=_sides(why),
        changes=[
            Tried(
                kind=one.kind,
                players=[*one.players],
                other=one.other,
                before=before,
                after=probability(one.value),
                flips=one.flips,
            )
            for one in why.changes
        ],
        limits=[*LIMITS],
    )


def _sides(why: Evidence) -> Sides:
    """What text and picture contribute as wholes."""
    share = why.text_share
    return Sides(
        t_shap=share,
        # Both are shares of absolute values, so they sum to 1.
        v_shap=None if share is None else 1 - share,
        both=why.both,
        text_only=why.text_only,
        picture_only=why.picture_only,
        none=why.neither,
        interaction=why.interaction,
    )


def _parts(why: Evidence) -> list[Part]:
    """What each word and each area of the picture contributes."""
    found = why.contributions
    return [
        Part(
            kind=player.kind,
            name=player.name,
            spans=[*player.spans],
            boxes=[*player.boxes],
            picture=player.picture,
            contribution=float(found.values[n]),
            # Never nan, which JSON lacks: a budget has at least two permutations.
            standard_error=float(found.errors[n]),
            # A model without attention has none, which is not 0.
            relevance=None if why.relevance is None else float(why.relevance[n]),
        )
        for n, player in enumerate(why.players)
    ]


def schema() -> dict[str, Any]:
    """Return the JSON schema of an explanation."""
    # Made from the type, so that it cannot disagree with what is written.
    return TypeAdapter(Explanation).json_schema()
