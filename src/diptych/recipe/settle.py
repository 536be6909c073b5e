"""Derive the settings that depend on the data: `auto`, `balanced`, and the sizes of the model.

`settle` takes a configuration and returns a complete one; the other functions do the same for a single node.
None of them changes its argument.
"""

from collections import ChainMap, Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from diptych.data import (
    Processor,
    Sources,
    first_images,
    has_images,
    image_limit,
    open_regions,
    with_regions,
)
from diptych.data.boxes import NoRegions
from diptych.data.stream import Texts, count_cut, count_targets, key_windows, look_at_labels, targets_of
from diptych.datasets.answer_table import Coverage, coverage, learn_answers, read_answers
from diptych.datasets.mix import Mix
from diptych.errors import ConfigError, first_five, nearest
from diptych.features import MergedStore
from diptych.nodes import function_of
from diptych.predictions import likeliest
from diptych.recipe.call import call
from diptych.recipe.heads import with_cases, with_parts, with_prompts, with_targets
from diptych.recipe.unread import require_read
from diptych.recipe.vocabulary import given_vocabulary
from diptych.tasks import Pretrain
from diptych.tasks.objectives import (
    Answers,
    Interventions,
    MaskedRegions,
    MaskedText,
    RegionFeatures,
    RegionLabels,
    RegionProbabilities,
)
from diptych.text import BytePair, SentencePiece, learn_vocabulary, train_fasttext, write_vocabulary
from diptych.types import Dataset, RegionSource

Node = Mapping[str, Any]
Criterion = Literal["accuracy", "f1", "youden"]  # what a threshold may maximize
CRITERIA = get_args(Criterion)


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A complete configuration, and the data it was derived from.

    Args:
        criterion: criterion that chooses the threshold after training; None if the threshold is a number.
        train: training split, without the examples that `processor.missing` and `limit` leave out.
        validate: validation split, without those examples.
        cut: number of training examples with a text that `processor.max_tokens` cuts.
        coverage: coverage of the training split by the table of answers; None for tasks without one.
    """

    config: Mapping[str, Any]
    criterion: str | None
    train: Dataset
    validate: Dataset
    processor: Processor
    sources: Sources
    cut: int
    coverage: Coverage | None = None


def settle(config: Mapping[str, Any], folder: Path) -> Settled:
    """Open the data of a run and derive the settings that depend on them.

    Args:
        folder: folder of the run. Vocabulary and sentence vectors are learned once into its `files/`; a
            resumed run reads them from there.

    Raises:
        ConfigError: a split is empty or has no labels, or a setting needs something that the data lack.
    """
    train, validate = call(config["data"]["train"]), call(config["data"]["validate"])
    for name, split in (("training", train), ("validation", validate)):
        if not len(split):
            raise ConfigError(f"the {name} split has no examples; expected at least one.")
    if beside := config["data"].get("beside"):
        # Only the first member has pictures of its own splits' names, so image keys stay as they are.
        train = Mix({"train": train, **{name: call(one) for name, one in beside.items()}}, one_store=True)
    images = _images(train, validate)
    # The order matters: the processor needs the vocabulary, and opening regions needs the processor. Class
    # weights count only the examples that have regions; the vocabulary is learned from all.
    task, covered = with_answers(config["task"], train, config["answer_minimum"])
    task, criterion = without_criterion(with_pairs(with_labels(task, train), train), validate)
    node = with_text_files(config, Texts(train), folder / "files")
    processor, task = call(node), with_tokenizer(task, node)
    require_read(config, processor)
    regions = open_regions(
        processor,
        config["features"],
        images,
        more=config["more_features"],
        merge=config["region_merge"],
        stores=[name for split in (train, validate) for name in getattr(split, "stores", ())],
        # A model that reads regions learns from text alone, too: with image=false.
        without=None if has_images(train) or has_images(validate) else _feature_dim(config["model"]),
        # validation first: training may see more boxes of a picture that both have
        own=[getattr(split, "regions", None) for split in (validate, train)],
    )
    answers = getattr(train, "labels", ())
    most = image_limit(config["limit"], pretraining=function_of(task) is Pretrain)
    train, validate = (
        with_regions(first_images(split, most, regions), processor, regions) for split in (train, validate)
    )
    model = with_sizes(with_parts(config["model"], regions), processor, regions)
    task, train = with_targets(with_prompts(task, processor), config["data"], train)
    task = with_class_weights(task, train)  # after the targets: a soft one gives an unlabeled meme its class
    task = with_cases(task, train)
    task = with_objectives(task, processor, regions, answers=answers, train=train)
    return Settled(
        config={**config, "model": model, "processor": node, "task": task},
        criterion=criterion,
        train=train,
        validate=validate,
        processor=processor,
        sources=Sources(regions=regions, images=images),
        cut=count_cut(train, processor),
        coverage=covered,
    )


def with_labels(task: Node, train: Dataset) -> Node:
    """Replace `labels: auto` by the classes of the training split."""
    if task.get("labels") != "auto":
        return task
    labels = getattr(train, "labels", ())  # only data sets with a fixed set of classes have them
    if len(labels) < 2:
        raise ConfigError(
            f"task.labels=auto, but the training split has the classes {list(labels)}; expected two or more. "
            "Name the column of the labels with data.columns.label=NAME, or set task.labels=[...]."
        )
    return {**task, "labels": list(labels)}


def with_tokenizer(task: Node, processor: Node) -> Node:
    """Replace `text: auto` of a task that writes sentences by the tokenizer of the processor.

    Raises:
        ConfigError: the processor has none.
    """
    if task.get("text") != "auto":
        return task
    if "text" not in processor:
        raise ConfigError(
            "task.text=auto, but the processor has no tokenizer; choose a model that reads text."
        )
    return {**task, "text": processor["text"]}


def with_pairs(task: Node, train: Dataset) -> Node:
    """`pairs: auto` becomes the number of pairs of the first training example.

    Raises:
        ConfigError: the task is configured for another number.
    """
    if "pairs" not in task:
        return task
    count = len(train[0].pairs)
    if task["pairs"] not in ("auto", count):
        raise ConfigError(
            f"task.pairs is {task['pairs']}, but the examples have {count} pair(s); set task.pairs=auto."
        )
    return {**task, "pairs": count}


def with_answers(task: Node, train: Dataset, minimum: int) -> tuple[Node, Coverage | None]:
    """`answers: auto` becomes the table of the data set, else the answers of the training split.

    Args:
        minimum: number of training examples that an answer needs if there is no table.

    Raises:
        ConfigError: the training split has none of the answers.
        FormatError: a file of answers is damaged.
    """
    answers = task.get("answers")
    if answers is None:
        return task, None
    # Counted once, for learning the table and for its coverage.
    counted = [*count_targets(train)]
    given: Path | None = getattr(train, "answer_table", None)
    if answers == "auto":
        answers = learn_answers(counted, minimum) if given is None else read_answers(given)
    elif isinstance(answers, str):
        answers = read_answers(Path(answers.removeprefix("@")))
    covered = coverage(answers, counted)
    if covered.examples and not covered.answerable:
        raise ConfigError(
            f"none of the {len(answers)} task.answers is an answer of a training example; the first are "
            f"{first_five(map(repr, answers))}. Is the table of another data set?"
        )
    return {**task, "answers": list(answers)}, covered


def without_criterion(task: Node, validate: Dataset) -> tuple[Node, str | None]:
    """Replace a criterion as threshold by 0.5 for training; returns the node and the criterion."""
    # 0.5 during training: the scores that decide on a threshold exist only afterwards.
    value = task.get("threshold")
    if not isinstance(value, str):
        return task, None
    if value not in CRITERIA:
        raise ConfigError(
            f"task.threshold is {value!r}; expected a number or one of {CRITERIA}.{nearest(value, CRITERIA)}"
        )
    if look_at_labels(validate)[0] == len(validate):
        raise ConfigError(f"task.threshold={value} needs labels in the validation split.")
    return {**task, "threshold": 0.5}, value


def with_class_weights(task: Node, train: Dataset) -> Node:
    """Replace `class_weights: balanced` by examples / (classes * examples of the class)."""
    if task.get("class_weights") != "balanced":
        return task
    # A soft label counts for its likeliest class.
    counts = Counter(likeliest(target) for _, target in targets_of(train))
    if missing := [label for label in task["labels"] if not counts[label]]:
        raise ConfigError(
            f"task.class_weights=balanced, but the training split has no {missing[0]!r} example."
        )
    weights = [len(train) / (len(task["labels"]) * counts[label]) for label in task["labels"]]
    return {**task, "class_weights": weights}


def with_text_files(config: Mapping[str, Any], texts: Iterable[str], folder: Path) -> Node:
    """Return the processor's node with paths for `vocabulary: auto` and `vectors.path: auto`.

    A vocabulary in the data set's folder is used, see `given_vocabulary`; otherwise the files are learned
    from `texts` into `folder`, unless they are there already.
    """
    node: Node = config["processor"]
    if "text" in node and node["text"]["vocabulary"] == "auto":
        if function_of(node["text"]) in (BytePair, SentencePiece):
            raise ConfigError(
                "vocabulary=auto learns a WordPiece vocabulary, but the model reads CLIP's byte pairs or "
                "SigLIP's pieces; set vocabulary=FILE to OpenAI's bpe_simple_vocab_16e6.txt.gz, or to the "
                "merges.txt, spiece.model or tokenizer.json of the weights."
            )
        # a learned file is kept: the weights of a resumed run belong to its rows
        learned, lowercase = folder / "vocabulary.txt", bool(node["text"].get("lowercase", True))
        path = given_vocabulary(node["text"], Path(config["root"])) or learned
        if not path.exists():
            write_vocabulary(learned, learn_vocabulary(texts, config["vocabulary_size"], lowercase=lowercase))
        node = {**node, "text": {**node["text"], "vocabulary": str(path)}}
    if "vectors" in node and node["vectors"]["path"] == "auto":
        learned = folder / "fasttext.bin"
        if not learned.exists():
            settings = {key: value for key, value in config["fasttext"].items() if key != "path"}
            train_fasttext(texts, learned, **settings)
        node = {**node, "vectors": {**node["vectors"], "path": str(learned)}}
    return node


def with_objectives(
    node: Node,
    processor: Processor,
    regions: RegionSource | None,
    *,
    answers: Sequence[str] = (),
    train: Dataset | None = None,
) -> Node:
    """Complete pre-training objectives with facts of the vocabulary, the features and the data set.

    Args:
        node: a task, or any node below it.
        answers: those of the data set.
        train: its first image with regions shows how many classes have probabilities.
    """
    node = _objective(node, processor, regions, answers)
    kind = function_of(node)
    soft = isinstance(kind, type) and issubclass(kind, RegionProbabilities) and "classes" not in node
    if soft and regions is not None and train is not None:
        node = {**node, "classes": _soft_classes(regions, train)}
    return {
        key: with_objectives(value, processor, regions, answers=answers, train=train)
        if isinstance(value, Mapping)
        else value
        for key, value in node.items()
    }


def _objective(
    node: Node, processor: Processor, regions: RegionSource | None, answers: Sequence[str]
) -> Node:
    kind, text, meta = function_of(node), processor.text, None if regions is None else regions.meta
    if not isinstance(kind, type):  # a function, or a mapping that describes no call
        return node
    if issubclass(kind, Answers) and node.get("labels") == "auto":
        if not answers:
            raise ConfigError(
                "labels=auto of the answers to learn, but the data set names none; give a list."
            )
        return {**node, "labels": list(answers)}
    if issubclass(kind, MaskedText) and text is not None:
        masking = node.get("masking") or {"_target_": "diptych.tasks.objectives.WordMasking"}
        special = [*text.special_ids]
        if masking.get("continuations") == "auto":
            pieces = (number for number, token in enumerate(text.tokens) if token.startswith("##"))
            masking = {**masking, "continuations": [*pieces]}
        return {**node, "masking": _filled(masking, mask_id=text.mask_id, special=special)}
    if issubclass(kind, RegionFeatures) and processor.prepare is not None:
        raise ConfigError(
            "RegionFeatures needs precomputed features, but the model is end to end; remove it."
        )
    if issubclass(kind, Interventions) and processor.whole_image:
        raise ConfigError("Interventions would predict the whole picture; set processor.whole_image=false.")
    if issubclass(kind, MaskedRegions) and processor.whole_image:
        return _filled(node, whole_image=True)
    if issubclass(kind, RegionFeatures) and meta is not None and not node.get("tied"):  # tied: no own layer
        return _filled(node, feature_dim=meta.feature_dim)
    if issubclass(kind, RegionLabels) and meta is not None:
        field = "attributes" if node.get("field") == "attributes" else "classes"
        node = {key: value for key, value in node.items() if (key, value) != ("classes", "auto")}
        names, given = getattr(meta, field), node.get("classes")
        if given is None and not names and not isinstance(regions, NoRegions):
            raise ConfigError(
                f"an objective predicts the {field} of regions, but the features do not name any. Import "
                f"them with --{field} FILE, or set `classes` of the objective to the detector's number."
            )
        if given is not None and given < len(names):
            raise ConfigError(f"classes is {given}, but the features have {len(names)} {field}.")
        return _filled(node, classes=len(names))
    return node


def _soft_classes(regions: RegionSource, train: Dataset) -> int:
    keys = (key for window in key_windows(train) for key in window if key in regions)
    first = next((regions[key] for key in keys if regions.count(key)), None)
    if first is None or first.probabilities is None:
        raise ConfigError(
            "the objective predicts the detector's probabilities of all classes, which the features lack; "
            "import features with them (cls_prob, classes or soft_labels), or remove the objective."
        )
    return int(first.probabilities.shape[1])


def with_sizes(model: Node, processor: Processor, regions: RegionSource | None) -> Node:
    """Return the model's node with the sizes that depend on the data; explicit sizes are kept."""
    if "model" in model:  # end to end: the backbone determines the width of features, not a store
        return {**model, "model": with_sizes(model["model"], processor, None)}
    if processor.text is not None:
        model = _filled(model, vocab_size=processor.text.vocab_size)
    if processor.vectors is not None:
        model = _filled(model, vector_dim=processor.vectors.dim)
    if regions is not None:
        model = _filled(model, feature_dim=regions.meta.feature_dim)
    if isinstance(regions, MergedStore):  # contains a region of the whole image
        model = _filled(model, whole_image=False)
        if model["whole_image"]:
            raise ConfigError(
                "more_features already has a region of the whole image; remove model.whole_image=true."
            )
    return model


def _feature_dim(model: Node) -> int:
    """Width of features that nobody gives: the one that is set, else that of most published detectors."""
    return int(model.get("feature_dim", 2048))


def _filled(node: Node, **defaults: Any) -> Node:
    """Add defaults for the keys that a node lacks; its own keys keep their values and come first."""
    return {**node, **defaults, **node}  # the first `node` is for the order, the last one for the values


def _images(*datasets: Dataset) -> Mapping[str, Path]:
    """Return the pictures of all data sets by key; for a key in several, the last data set wins.

    A `ChainMap`, because the mappings of large data sets look up files only when asked.
    """
    return ChainMap(*(split.images for split in reversed(datasets) if hasattr(split, "images")))
