"""What the service reads and answers, as structures; an unknown field of a request is an error.

`/openapi.json` is made of them, and the tests hold every answer against it.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from diptych.explain.document import Explanation, Remembered

Name = Annotated[str, Meta(max_length=256)]
Action = Literal["allow", "review", "block"]


class Closed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of requests."""


class Picture(Closed, frozen=True, kw_only=True):
    """Exactly one of the encoded picture, its address, or its key in the feature store."""

    data: bytes | None = field(default=None, name="bytes")
    url: Annotated[str, Meta(max_length=2048)] | None = None
    key: Name | None = None


class Options(Closed, frozen=True, kw_only=True):
    """How a meme is read and answered."""

    ocr: Literal["never", "if_empty", "always"] = "if_empty"
    explain: bool = False
    members: bool = True


class ScoreRequest(Closed, frozen=True, kw_only=True):
    """One meme. `tags` are written to the audit log and kept apart in its reports."""

    id: Name | None = None
    text: str | None = None
    image: Picture | None = None
    model: Name | None = None
    policy: Name | None = None
    options: Options = Options()
    tags: Annotated[dict[Name, Name], Meta(max_length=16)] = {}


class BatchRequest(Closed, frozen=True, kw_only=True):
    """Several memes; `items` are answered in their order."""

    items: Annotated[list[ScoreRequest], Meta(min_length=1)]


class FeedbackRequest(Closed, frozen=True, kw_only=True):
    """A moderator's decision on an earlier request.

    `teach` makes the meme a case of the model's memory: `label` is the class that the person gives it, and
    `policy` the rule of the memory by which it was judged.
    """

    request_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    action: Literal["allow", "block"]
    label: Name | None = None
    note: Annotated[str, Meta(max_length=1000)] | None = None
    teach: bool = False
    policy: Name | None = None


class ImageUrl(Struct, frozen=True, kw_only=True):
    """The address of a picture, or the picture itself as a `data:` address. Open, as OpenAI's clients are."""

    url: str


class Part(Struct, frozen=True, kw_only=True):
    """A text or a picture of OpenAI's multi-modal input."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None


class ModerationRequest(Struct, frozen=True, kw_only=True):
    """OpenAI's request: one text, several texts, or the parts of one meme."""

    input: str | list[str | Part]
    model: str | None = None


class ModelRef(Struct, frozen=True, kw_only=True):
    """The model that answered. `calibration` is null where its scores are not calibrated."""

    name: str
    sha256: str
    calibration: str | None


class Decision(Struct, frozen=True, kw_only=True):
    """What the policy says. `audit` marks an allowed meme that was drawn for people to look at."""

    action: Action
    label: str
    probability: float
    why: str
    policy: str
    audit: bool = False


class Read(Struct, frozen=True, kw_only=True):
    """What the model read. `animated`: only the first frame."""

    text: str
    text_source: Literal["given", "ocr", "none"]
    regions: int | None = None
    width: int | None = None
    height: int | None = None
    animated: bool = False


class MemberScore(Struct, frozen=True, kw_only=True):
    """The probability of the positive class by a member of a study."""

    name: str
    score: float


class Timing(Struct, frozen=True, kw_only=True):
    """Milliseconds of each stage. With `cache: hit`, the model was not asked."""

    explain: float = 0.0

    queue: float
    prepare: float
    ocr: float
    model: float
    total: float
    cache: Literal["hit", "miss"] = "miss"


class Votes(Struct, frozen=True, kw_only=True):
    """What a memory adds: the scores of the model alone, and the cases that decided most, in log-odds."""

    version: str
    before: dict[str, float]
    cases: list[Remembered]


class ScoreAnswer(Struct, frozen=True, kw_only=True):
    """The verdict. `scores` are calibrated probabilities if there is a policy; `raw` are the model's own.

    With a memory, both have its votes; the model alone is `memory.before`. `evidence` is what
    `options.explain` asks for, in the form of `diptych explain --json`, and about the model alone.
    """

    request_id: str
    model: ModelRef
    scores: dict[str, float]
    raw: dict[str, float]
    answer: str
    decision: Decision | None
    read: Read
    members: list[MemberScore]
    timing_ms: Timing
    id: str | None = None
    evidence: Explanation | None = None
    memory: Votes | None = None


class Fault(Struct, frozen=True, kw_only=True):
    """A value at fault, by its JSON pointer."""

    pointer: str
    detail: str


class ProblemAnswer(Struct, frozen=True, kw_only=True):
    """Why there is no answer (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[Fault] | UnsetType = UNSET


class BatchItem(Struct, frozen=True, kw_only=True):
    """The answer to one meme of several: a result or a problem."""

    result: ScoreAnswer | None = None
    problem: ProblemAnswer | None = None


JobState = Literal["running", "done", "stopped"]


class JobAnswer(Struct, frozen=True, kw_only=True):
    """A job. `done` counts its memes with a result or a problem, `failed` those with a problem.

    A job is `stopped` if it was canceled, ran too long, or the service is stopping.
    """

    id: str
    state: JobState
    items: int
    done: int
    failed: int
    created: str
    finished: str | None
    results: str


class JobList(Struct, frozen=True, kw_only=True):
    """Jobs, the oldest first."""

    jobs: list[JobAnswer]


class JobLine(Struct, frozen=True, kw_only=True):
    """The answer to a meme of a job: its number from 0, its id, and a result or a problem."""

    number: int
    id: str | None = None
    result: ScoreAnswer | None = None
    problem: ProblemAnswer | None = None


class BatchAnswer(Struct, frozen=True, kw_only=True):
    """Answers in the order of the items."""

    items: list[BatchItem]


class FeedbackAnswer(Struct, frozen=True, kw_only=True):
    """`known`: whether this process has answered the request lately; `case`: id of what was taught."""

    request_id: str
    known: bool
    case: str | None = None
    memory: str | None = None


class ReviewItem(Struct, frozen=True, kw_only=True):
    """A meme for people to look at. `picture`: whether its address has one."""

    request_id: str
    time: str
    model: str
    decision: Decision
    raw: dict[str, float]
    text: str
    text_source: Literal["given", "ocr", "none"]
    image_key: str | None
    picture: bool
    tags: dict[str, str]
    memory: Votes | None = None


class ReviewList(Struct, frozen=True, kw_only=True):
    """The oldest memes of the queue; `total` counts all."""

    total: int
    items: list[ReviewItem]


class ModerationResult(Struct, frozen=True, kw_only=True):
    """OpenAI's result for one input; the categories are the labels of the policy."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text", "image"]]]


class ModerationAnswer(Struct, frozen=True, kw_only=True):
    """OpenAI's answer."""

    id: str
    model: str
    results: list[ModerationResult]


class Thresholds(Struct, frozen=True, kw_only=True):
    """The band of a label, in the model's own scores; null where nothing is decided unseen."""

    allow: float | None
    block: float | None
    max_miss: float | None
    max_wrong_block: float | None


class PolicyCard(Struct, frozen=True, kw_only=True):
    """The policy of a model."""

    name: str
    id: str
    calibration: str
    labels: dict[str, Thresholds]


class MemoryCard(Struct, frozen=True, kw_only=True):
    """The memory of a model. Cases change scores once it is `fitted`; `teachers`: who may add some."""

    version: str
    cases: int
    policies: list[str]
    fitted: bool
    teachers: str


class ModelCard(Struct, frozen=True, kw_only=True):
    """A model of the service. `metrics` were measured on its validation split."""

    name: str
    sha256: str
    task: str
    labels: list[str]
    reads: list[str]
    members: list[str]
    metrics: dict[str, float]
    policy: PolicyCard | None
    memory: MemoryCard | None
    limits: dict[str, float]
    default: bool


class ModelList(Struct, frozen=True, kw_only=True):
    """All models, the default first; and whether the service reads words, and keeps memes for people."""

    models: list[ModelCard]
    reads_words: bool
    review: bool


class ReloadAnswer(Struct, frozen=True, kw_only=True):
    """Checksums of a model before and after it was loaded again."""

    name: str
    before: str
    after: str


class Ready(Struct, frozen=True, kw_only=True):
    """Whether requests are welcome, and if not, why."""

    ready: bool
    why: str
