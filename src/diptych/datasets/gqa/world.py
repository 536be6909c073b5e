"""A miniature world in the format of GQA, with the oddities of its real records."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych.datasets.answer_table import learn_answers, write_answers
from diptych.datasets.question_world import AskedScene, QuestionWorld
from diptych.types import Progress
from diptych.world import Question
from diptych.world.scene import COLORS, KINDS, PATTERNS

# Structural type, semantic type, operation of a question's last step, global group.
FORMS: dict[str, tuple[str, str, str, str | None]] = {
    "color": ("query", "attr", "query", "color"),
    "kind": ("query", "cat", "query", "thing"),
    "place": ("query", "rel", "query", "thing"),
    "pattern": ("verify", "attr", "verify pattern", None),
    "presence": ("verify", "obj", "exist", ""),
}
VALID = {"color": COLORS, "kind": tuple(KINDS), "place": tuple(KINDS)}
Records = dict[str, dict[str, Any]]


def write_world(folder: Path, *, size: int, seed: int, progress: Progress | None) -> dict[str, int]:
    """Write the official question files, choices, scene graphs, an answer table, pictures and regions.

    Every question about a color has a question in the tier `all` that follows from it, "is the cat teal?".

    Args:
        size: number of balanced questions.

    Returns:
        Number of questions of each split.
    """
    world = QuestionWorld(size, seed, topics=tuple(FORMS))
    middle = len(world.parts["val"]) // 2
    tiers = {
        "train": world.parts["train"],
        "val": world.parts["val"][:middle],
        "testdev": world.parts["val"][middle:],
        "test": world.parts["test"],
    }
    splits: dict[str, Records] = {}
    for tier, scenes in tiers.items():
        every = {key: record for asked in scenes for key, record in _records(asked)}
        splits[tier] = {key: record for key, record in every.items() if record["isBalanced"]}
        splits[f"{tier}_all"] = every
    public = ("question", "isBalanced", "imageId")
    # Answers and everything that gives them away are withheld.
    for name in ("test", "test_all"):
        splits[name] = {
            key: {field: record[field] for field in public} for key, record in splits[name].items()
        }
    splits["submission"] = {
        key: {field: record[field] for field in public}
        for name in ("val_all", "testdev_all", "test_all")
        for key, record in splits[name].items()
    }
    for name, records in splits.items():
        _write_split(folder, name, records)
    table = learn_answers((({record["answer"]: 1.0}, 1) for record in splits["train_all"].values()), 1)
    write_answers(folder / "trainval_label2ans.json", table)
    choices = {key: _choices(record) for key, record in splits["val_all"].items()}
    _dump(folder / "val_choices.json", choices)
    _dump(folder / "val_sceneGraphs.json", {_image(asked): _graph(asked) for asked in tiers["val"][:2]})
    world.write(folder, _image, progress)
    return {split: len(records) for split, records in splits.items()}


def _dump(path: Path, values: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values) + "\n", encoding="utf-8")


def _write_split(folder: Path, name: str, records: Records) -> None:
    tier, _, rest = name.partition("_")
    stem = f"{tier}_{'all' if rest or tier == 'submission' else 'balanced'}_questions"
    if name != "train_all":
        _dump(folder / f"{stem}.json", records)
        return
    items = [*records.items()]
    # The official `train_all` is a folder of ten chunks; two are enough to test their joining.
    for number in range(2):
        _dump(folder / stem / f"{stem}_{number}.json", dict(items[number::2]))


def _image(asked: AskedScene) -> str:
    # GQA has both forms: images of COCO's test set, and numbers of Visual Genome.
    return f"n{100_000 + asked.number}" if asked.number % 3 == 0 else str(2_300_000 + asked.number)


def _records(asked: AskedScene) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, question in enumerate(asked.questions):
        # Even numbers for questions, and the next odd one for what follows from them.
        number = 20 * asked.number + 2 * place
        key, follows = _key(number), _key(number + 1)
        record = _record(asked, question, key)
        if question.topic == "color":
            # The question itself is in the list, too, as in the official files; measures leave it out.
            record["entailed"] = [key, follows, _key(90_000_000 + number)]  # the last one is in no file
            text = question.text.replace("what color is ", "is ").replace("?", f" {question.answer}?")
            inferred = Question(text=text, answer="yes", topic="pattern")
            yield follows, _record(asked, inferred, follows) | {"isBalanced": False}
        yield key, record


def _key(number: int) -> str:
    return f"{number:08d}"  # leading zeros, which the server expects


def _record(asked: AskedScene, question: Question, key: str) -> dict[str, Any]:
    structural, semantic, operation, group = FORMS[question.topic]
    subject = question.text.rstrip("?").rpartition(" ")[2]
    steps: list[dict[str, Any]] = [
        {"operation": "select", "dependencies": [], "argument": f"{subject} (0)"},
        {"operation": operation, "dependencies": [0], "argument": question.topic},
    ]
    return {
        "semantic": steps,
        "entailed": [],
        "equivalent": [key],
        "question": question.text,
        "imageId": _image(asked),
        "isBalanced": True,
        "groups": {"global": group, "local": f"10-{subject}"},
        "answer": question.answer,
        "semanticStr": "->".join(f"{step['operation']}: {step['argument']}" for step in steps),
        "annotations": {"answer": {}, "question": {"2:4": "0"}, "fullAnswer": {"1": "0"}},
        "types": {
            "structural": structural,
            "semantic": semantic,
            "detailed": f"{structural}{question.topic}",
        },
        "fullAnswer": f"{question.answer.capitalize()}.",
    }


def _choices(record: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    topic = record["semantic"][1]["argument"]
    valid = VALID.get(topic, ("yes", "no"))
    return {"valid": valid, "plausible": valid[: len(valid) // 2]}


def _graph(asked: AskedScene) -> dict[str, Any]:
    things, (width, height) = asked.scene.things, asked.scene.size
    objects = {
        str(number): {
            "name": thing.kind,
            "x": thing.box[0],
            "y": thing.box[1],
            "w": thing.box[2] - thing.box[0],
            "h": thing.box[3] - thing.box[1],
            "attributes": [thing.color, *({thing.pattern} - {PATTERNS[0]})],
            "relations": [],
        }
        for number, thing in enumerate(things)
    }
    return {"width": width, "height": height, "objects": objects}
