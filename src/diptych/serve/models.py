"""Models that stay in memory: a bundle, or all members of a study and their blend, each loaded once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxtyping import Float
from numpy import ndarray
from PIL import Image

from diptych.bundle import find_bundle
from diptych.calibrate import Policy
from diptych.data import Row, Sources
from diptych.errors import ConfigError, nearest
from diptych.memory import require_labels, vectors_of
from diptych.predict import Predictor, load
from diptych.predict.predictor import BEST
from diptych.predictions import Predictions
from diptych.serve.memories import LiveMemory
from diptych.serve.problems import Problem
from diptych.serve.regions import HERE, POINTER, ByKey, Detectors, Find, Meme, find_regions
from diptych.study import StudyBlend, extractions, is_study, model_of, places_of, read_tree
from diptych.study.score import STORES, Tree
from diptych.tasks import Answer
from diptych.types import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How models are loaded; see `diptych score`.

    Args:
        features: stores used instead of those of training, by name.
        weights: files of detectors by name; None is for random weights.
        boxes: box rule for a model that knows no store.
    """

    features: Mapping[str, Path] = field(default_factory=dict)
    weights: Mapping[str, Path | None] = field(default_factory=dict)
    boxes: str = "36"
    device: str = "auto"
    precision: str = "32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A meme as all members of a model read it.

    Args:
        rows: of each member.
        length: tokens and regions of the longest row, to which a batch is padded.
        regions: number of regions; None if the model reads none.
    """

    rows: tuple[tuple[Row, ...], ...]
    length: int
    regions: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What a model says about a meme.

    Args:
        scores: probabilities by class, as `diptych predict` writes them.
        answer: the class that the model answers with.
        members: of a study, the probability of the positive class by member.
        vector: by which a memory compares the meme with its cases; None without a memory.
    """

    scores: dict[str, float]
    answer: str
    members: dict[str, float] = field(default_factory=dict)
    vector: Float[ndarray, " D"] | None = None


class Member:
    """One loaded bundle.

    Args:
        find: where its regions come from; None if it reads none.
    """

    def __init__(self, predictor: Predictor, find: Find | None, *, where: Path) -> None:
        if predictor.images != 1:
            raise ConfigError(f"{where} compares {predictor.images} pictures; the service takes one.")
        self.predictor, self.find = predictor, find

    def prepare(self, meme: Meme) -> tuple[Row, ...]:
        """Tokenize the text and look at the picture.

        Raises:
            Problem: an input that the model reads is missing.
        """
        return tuple(self.predictor.processor.rows(*self.opened(meme)))

    def opened(self, meme: Meme) -> tuple[Example, Sources]:
        """A meme as an example, and where its picture and regions are.

        Raises:
            Problem: an input that the model reads is missing.
        """
        needs, key = self.predictor.needs, meme.key or HERE
        if "pixels" in needs and meme.image is None:
            known = meme.key is not None
            detail = "the service has no picture of this key" if known else "the model reads pictures"
            place = f"{POINTER}/key" if known else POINTER
            raise Problem("invalid-request", f"{detail}; send one.", pointer=place)
        seen = self.find is not None or "pixels" in needs
        example = self.predictor.example("0", keys=(key,) if seen else (), text=meme.text)
        images = None if meme.image is None else {key: meme.image}
        return example, Sources(regions=None if self.find is None else self.find(meme), images=images)

    def score(self, memes: Sequence[tuple[Row, ...]]) -> Predictions:
        """Predict a batch.

        Raises:
            ConfigError: a score is no finite number.
        """
        return self.predictor.predict_rows(memes)


class Resident:
    """A model of the service: one bundle, or a study with its members and its blend.

    Args:
        name: in requests.
        source: a run, a bundle, or the folder of a study.
        members: the bundle alone, under an empty name, or the members of the study.
        tree: of the study.
    """

    def __init__(
        self,
        name: str,
        source: Path,
        members: Mapping[str, Member],
        *,
        tree: Tree | None = None,
        policy: tuple[str, str, Policy] | None = None,
    ) -> None:
        self.name, self.source, self.members, self.tree = name, source, dict(members), tree
        self.sha256 = model_of(source)
        self.blend = None if tree is None else StudyBlend(source, tree)
        self.policy: Policy | None = None
        self.policy_name, self.policy_id = "", ""
        self.policy_file: Path | None = None
        self.memory: LiveMemory | None = None
        self.parts: tuple[str, ...] = ()  # of the vectors that are computed beside the scores
        self.warm = self._warm_up()
        self.classes = tuple(self.warm.scores)
        if policy is not None:
            self.decide_by(*policy)

    @property
    def first(self) -> Predictor:
        return next(iter(self.members.values())).predictor

    @property
    def reads(self) -> tuple[str, ...]:
        """The modalities that the members read, such as `text` and `regions`."""
        return tuple(sorted(set().union(*(member.predictor.needs for member in self.members.values()))))

    @property
    def positive(self) -> str:
        """The class that a decision is about where there is no policy."""
        return self.classes[-1]

    def decide_by(self, name: str, checksum: str, policy: Policy) -> None:
        """Use a policy.

        Raises:
            ConfigError: it was made for another model, or decides on classes that the model does not have.
        """
        policy.require_model(self.sha256)
        if missing := sorted(policy.labels.keys() - set(self.classes)):
            raise ConfigError(
                f"the policy {name} decides on {missing[0]!r}, but {self.source} scores "
                f"{', '.join(self.classes)}."
            )
        self.policy, self.policy_name, self.policy_id = policy, name, f"{name}@{checksum[:12]}"

    def remember_by(self, memory: LiveMemory) -> None:
        """Use a memory.

        Raises:
            ConfigError: this is a study, or the model gives no vectors as the memory has them.
        """
        if self.tree is not None:
            raise ConfigError(f"{self.source} is a study, but a memory is of one model; serve its member.")
        require_labels(self.first)
        self.memory, self.parts = memory, memory.parts
        self.warm = self._warm_up()
        assert self.warm.vector is not None  # there are parts
        memory.recall(self.warm.scores, self.warm.vector)

    def prepare(self, meme: Meme) -> Prepared:
        """Turn a meme into the rows of all members; runs outside of the thread of the models.

        Raises:
            Problem: an input that a member reads is missing.
        """
        rows = tuple(member.prepare(meme) for member in self.members.values())
        every = [row for own in rows for row in own]
        regions = [len(row.regions) for row in every if row.regions is not None]
        length = max(
            (0 if row.tokens is None else len(row.tokens)) + (0 if row.regions is None else len(row.regions))
            for row in every
        )
        return Prepared(rows=rows, length=max(1, length), regions=max(regions, default=None))

    def score(self, memes: Sequence[Prepared]) -> list[Scored]:
        """Score a batch of memes.

        Raises:
            ConfigError: a score is no finite number, or the task has no scores.
        """
        found = {
            name: member.score([meme.rows[number] for meme in memes])
            for number, (name, member) in enumerate(self.members.items())
        }
        if self.blend is None:
            alone = _single(found[""], self.first)
            if not self.parts:
                return alone
            # A second pass through the model: what a task reads for its scores seldom has these vectors.
            vectors = vectors_of(self.first, [meme.rows[0] for meme in memes], self.parts)
            return [replace(one, vector=vector) for one, vector in zip(alone, vectors, strict=True)]
        whole = self.blend(found)
        assert whole.scores is not None and whole.classes is not None and whole.answers is not None
        return [
            Scored(
                scores=dict(zip(whole.classes, map(float, scores), strict=True)),
                answer=answer,
                members={name: float(one.column(whole.classes[-1])[row]) for name, one in found.items()},
            )
            for row, (scores, answer) in enumerate(zip(whole.scores, whole.answers, strict=True))
        ]

    def _warm_up(self) -> Scored:
        """Score two made-up memes, alone and together: first calls allocate, and wrong models fail here."""
        white = Image.new("RGB", (64, 64), "white")
        memes = [
            self.prepare(Meme(text=text, image=white, key=self._known_key())) for text in ("a", "a b c d")
        ]
        for batch in (memes[:1], memes):
            scored = self.score(batch)
        return scored[0]

    def _known_key(self) -> str | None:
        stores = [member.find for member in self.members.values() if isinstance(member.find, ByKey)]
        shared = (key for key in stores[0] if all(key in store.source for store in stores)) if stores else ()
        return next(iter(shared), None)


def _single(found: Predictions, predictor: Predictor) -> list[Scored]:
    if found.scores is None or found.classes is None:
        raise ConfigError(f"{type(predictor.task).__name__} gives answers without scores; it is not served.")
    several = []
    for row, answer in zip(found.scores, found.answers or ("",) * len(found), strict=True):
        named = dict(zip(found.classes, map(float, row), strict=True))
        if isinstance(predictor.task, Answer):
            # Of thousands of answers, only the best say something.
            named = dict(sorted(named.items(), key=lambda pair: -pair[1])[:BEST])
        several.append(Scored(scores=named, answer=answer))
    return several


def load_model(name: str, source: Path, setup: Setup) -> Resident:
    """Load a bundle, or a study with all its members, and warm it up.

    Raises:
        ConfigError: the model is not one that the service can serve, or lacks a source of regions.
        FormatError: there is no model in the folder, or a file of it is damaged.
    """
    places = places_of(source)
    known = {key: place for key, place in setup.features.items() if key in places}
    places = {**places, **known}
    detect = None
    if setup.weights:
        detect = Detectors(extractions(source, setup.weights, boxes=setup.boxes), device=setup.device)
    if not is_study(source):
        member = _member(source, (places["features"], places["more_features"]), STORES, setup, detect)
        return Resident(name, source, {"": member})
    tree = read_tree(source)
    members = {}
    for one, about in tree["members"].items():
        names = (about["features"], about["more_features"])
        main, more = (None if key is None else places[key] for key in names)
        members[one] = _member(source / about["bundle"], (main, more), names, setup, detect)
    return Resident(name, source, members, tree=tree)


def require_used(models: Sequence[Resident], setup: Setup) -> None:
    """Check that every store and every detector is for one of the models; each takes what it knows.

    Raises:
        ConfigError: none of the models reads what is given.
    """
    stores = set[str]()
    for one in models:
        reads = one.tree is not None or one.first.processor.regions
        stores |= places_of(one.source).keys() if reads else set()
    if unknown := sorted(setup.features.keys() - stores):
        raise ConfigError(
            f"features {unknown[0]} are given, but no model of the service reads them."
            f"{nearest(unknown[0], stores)} Read are: {', '.join(sorted(stores)) or 'none'}."
        )
    if setup.weights and not any(extractions(one.source, setup.weights, boxes=setup.boxes) for one in models):
        raise ConfigError(
            f"weights of {', '.join(setup.weights)} are given, but no model of the service was trained on "
            "features of a detector; remove them."
        )


def _member(
    source: Path,
    places: tuple[Path | str | None, Path | str | None],
    names: tuple[str | None, str | None],
    setup: Setup,
    detect: Detectors | None,
) -> Member:
    predictor = load(source, device=setup.device, precision=setup.precision)
    # `more_features` is a name even where nothing was trained on it.
    present = (names[0], names[1] if places[1] is not None else None)
    find = find_regions(
        predictor.processor,
        places,
        merge=predictor.bundle.provenance.get("region_merge"),
        names=present,
        detect=detect,
        meta=predictor.bundle.features,
    )
    return Member(predictor, find, where=source)


def named_models(words: Sequence[str]) -> dict[str, Path]:
    """Names of models by `NAME=FOLDER` or the name of the folder.

    Raises:
        ConfigError: two models have one name.
    """
    named: dict[str, Path] = {}
    for word in words:
        name, _, place = word.rpartition("=")
        folder = Path(place)
        # A bundle in a run is called `bundle`, which says nothing.
        own = folder.resolve().parent.name if folder.name == "bundle" else folder.resolve().name
        if (name or own) in named:
            raise ConfigError(
                f"{folder} and {named[name or own]} are both called {name or own!r}; set NAME={folder}."
            )
        named[name or own] = folder
    return named


def weight_bytes(source: Path) -> int:
    """Bytes of the weights of a model on disk, about as many as it takes in memory."""
    folders = (
        [source / about["bundle"] for about in read_tree(source)["members"].values()]
        if is_study(source)
        else [source]
    )
    return sum((find_bundle(folder) / "weights.safetensors").stat().st_size for folder in folders)
