"""Teach a model by examples without training: a new case counts in the next request.

A memory is a folder of judged memes for one model. The nearest cases vote, and their votes are added to the
model's verdict. Each policy votes on its own; `fit` learns how near is near, and how much votes weigh.

  add      a picture and its text with a label, or labeled memes of a data set; makes MEMORY if there is none
  remove   cases by id, or all of a policy
  list     the cases, and what was learned
  fit      learn from a labeled split; until then, cases are shown and change no score

try:
  diptych memory fit memory --model runs/mine --root memes --split dev_seen
  diptych memory add memory --image new.png --text "what a day" --label hateful --model runs/mine
  diptych memory add memory --root memes --split train --ids 3,7 --policy spam --model runs/mine
  diptych score other.png --text "what a night" --model runs/mine --memory memory
  diptych memory remove memory --ids 3,7
"""

import argparse
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.cli.data import chosen_data
from diptych.cli.options import add_batch_size, add_data, add_device, add_json, add_root
from diptych.cli.output import as_json, progress, table
from diptych.errors import ConfigError, nearest

if TYPE_CHECKING:
    from diptych.datasets import Split
    from diptych.memory import Asked, Case, FitReport, Memory
    from diptych.predict import Predictor

ACTIONS = ("add", "remove", "list", "fit")


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", choices=ACTIONS)
    add("memory", type=Path, help="folder of the memory")
    add("--model", type=Path, help="for add and fit: the run or bundle that the memory is for")
    add("--parts", help="of a new memory: the vectors to compare, comma-separated, as for embed")
    add("--image", type=Path, help="for add: a picture")
    add("--text", help="for add: its text")
    add("--label", help="for add: what it is, a class of the model (default: that of the data set)")
    add("--policy", help="for add and remove: name of the rule by which it was judged (default: main)")
    add("--id", help="for add: id of the case (default: follows from text and picture)")
    add("--ids", help="ids, comma-separated: for remove, of cases; for add, of memes of --split")
    add("--split", help="labeled memes of a data set, for fit and add")
    add_root(parser, "of --split (default: the one trained on)")
    add_data(parser)
    add("--features", type=Path, help="feature store or boxes.jsonl (default: as trained)")
    add("--more-features", type=Path, help="the second store of a model that merges two")
    add("--harm", type=float, default=0.01, help="share of --split that fit may spoil (default: 0.01)")
    add("--folds", type=int, default=5, help="folds of the numbers that fit reports (default: 5)")
    add_device(parser)
    add_batch_size(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    action: str = arguments.action
    if (arguments.model is None) == (action in ("add", "fit")):
        verb = "needs" if arguments.model is None else "takes no"
        raise ConfigError(
            f"diptych memory {action} {verb} --model, the run or bundle that the memory is for."
        )
    return {"add": _add, "remove": _remove, "list": _list, "fit": _fit}[action](arguments)


def _add(arguments: argparse.Namespace) -> int:
    from diptych.memory import Memory, change

    if (arguments.split is None) == (arguments.image is None and arguments.text is None):
        raise ConfigError("give either --image and --text, or --split: one meme, or memes of a data set.")
    predictor, empty = _opened_for(arguments)
    make = _given if arguments.split is None else _of_split
    asked, cases = make(arguments, predictor, empty)

    def edit(memory: Memory | None) -> Memory:
        memory = _current(arguments, memory, empty, asked)
        return memory.with_cases(cases, asked.vectors)

    memory = change(arguments.memory, edit)
    if arguments.json:
        as_json({"added": [case.id for case in cases], "cases": len(memory.cases)})
        return 0
    shown = ", ".join(case.id for case in cases[:5]) + (", ..." if len(cases) > 5 else "")
    print(f"added {shown}; {arguments.memory} now has {len(memory.cases):,}")
    if memory.learned is None:
        print(
            f"next: diptych memory fit {arguments.memory} --model {arguments.model} --split SPLIT\n"
            "      until then, cases are shown and change no score"
        )
    return 0


def _opened_for(arguments: argparse.Namespace) -> "tuple[Predictor, Memory]":
    """The model, and a memory for it without cases; one of another model is refused before it is loaded."""
    import numpy as np

    from diptych.memory import Memory, require_labels, usual_parts
    from diptych.predict import bundle_checksum, load

    checksum, parts = bundle_checksum(arguments.model), arguments.parts and tuple(arguments.parts.split(","))
    if arguments.memory.exists():
        known = Memory.load(arguments.memory)
        known.require_model(checksum, where=arguments.memory)
        if parts and parts != known.parts:
            raise ConfigError(
                f"{arguments.memory} compares {', '.join(known.parts)}, but --parts is {arguments.parts}; "
                "make another memory for other vectors."
            )
        parts = known.parts
    predictor = load(arguments.model, device=arguments.device, precision=arguments.precision)
    nothing = np.empty((0, 1), np.float32)
    return predictor, Memory(
        model=checksum,
        parts=parts or usual_parts(predictor),
        classes=require_labels(predictor),
        cases=(),
        vectors=nothing,
        center=np.zeros(1, np.float32),
    )


def _current(
    arguments: argparse.Namespace, memory: "Memory | None", empty: "Memory", asked: "Asked"
) -> "Memory":
    """The memory that is changed; another process may have made it since it was looked at."""
    from dataclasses import replace

    import numpy as np

    if memory is None:
        width = asked.vectors.shape[1]
        return replace(empty, vectors=np.empty((0, width), np.float32), center=np.zeros(width, np.float32))
    memory.require_model(empty.model, where=arguments.memory)
    return memory


def _given(
    arguments: argparse.Namespace, predictor: "Predictor", memory: "Memory"
) -> "tuple[Asked, list[Case]]":
    """One meme of the command line."""
    from diptych.files import require_file
    from diptych.memory import ask, case_id
    from diptych.predict import Listed, regions_of_run

    image, text = arguments.image, arguments.text or ""
    if arguments.label is None or arguments.ids is not None:
        raise ConfigError("a meme of --image and --text needs --label, and takes --id in place of --ids.")
    if image is None and (predictor.processor.regions or "pixels" in predictor.needs):
        raise ConfigError("the model reads pictures; add --image.")
    pictures = {} if image is None else {image.stem: require_file(image, "a picture file")}
    name = arguments.id or case_id(text, image)
    example = predictor.example(name, keys=(*pictures,), text=text)
    places = (arguments.features, arguments.more_features)
    store = regions_of_run(predictor, arguments.model, pictures, *places)
    asked = ask(predictor, Listed([example]), memory.parts, features=store, images=pictures)
    return asked, _cases(arguments, asked, {name: (arguments.label, text, image.name if image else "")})


def _of_split(
    arguments: argparse.Namespace, predictor: "Predictor", memory: "Memory"
) -> "tuple[Asked, list[Case]]":
    """Labeled memes of a data set."""
    if arguments.image is not None or arguments.text is not None or arguments.id is not None:
        raise ConfigError("--image, --text and --id are for one meme, and not for those of --split.")
    dataset = _opened(arguments, predictor)
    if arguments.ids is not None:
        from diptych.data.stream import ids_of

        known = {name: number for number, name in enumerate(ids_of(dataset))}
        wanted = list(dict.fromkeys(arguments.ids.split(",")))
        if missing := [name for name in wanted if name not in known]:
            raise ConfigError(
                f"{dataset.files[0]} has no example with the id {missing[0]!r}.{nearest(missing[0], known)}"
            )
        import numpy as np

        dataset.keep(np.array(sorted(known[name] for name in wanted)))
    asked, about = _asked(arguments, predictor, dataset, memory), {}
    for example in dataset:
        pair = example.pairs[0]
        about[example.id] = (arguments.label or example.target, pair.text, str(pair.image or ""))
    return asked, _cases(arguments, asked, about)


def _cases(
    arguments: argparse.Namespace, asked: "Asked", about: dict[str, tuple[Any, str, str]]
) -> "list[Case]":
    from diptych.memory import DEFAULT, Case
    from diptych.memory.store import LONGEST

    today, cases = date.today().isoformat(), []
    for row, name in enumerate(asked.ids):
        label, text, picture = about[name]
        if not isinstance(label, str):
            raise ConfigError(f"example {name} has no label of its own; add --label.")
        cases.append(
            Case(
                id=name,
                label=label,
                scores=tuple(map(float, asked.scores[row])),
                policy=arguments.policy or DEFAULT,
                text=text[:LONGEST],
                picture=picture,
                added=today,
            )
        )
    return cases


def _opened(arguments: argparse.Namespace, predictor: "Predictor") -> "Split":
    from diptych.predict import root_of_run

    root = root_of_run(arguments.model, arguments.root).absolute()
    about = predictor.bundle.provenance.get("data")
    data = chosen_data(arguments, root, about, f"the bundle in {arguments.model}")
    return data.open_labeled(root, arguments.split)


def _asked(
    arguments: argparse.Namespace, predictor: "Predictor", dataset: "Split", memory: "Memory"
) -> "Asked":
    from diptych.memory import ask
    from diptych.predict import regions_of_run

    store = regions_of_run(predictor, arguments.model, dataset, arguments.features, arguments.more_features)
    with progress(f"embedding {dataset.split}") as advance:
        return ask(
            predictor,
            dataset,
            memory.parts,
            features=store,
            batch_size=arguments.batch_size,
            progress=advance,
        )


def _remove(arguments: argparse.Namespace) -> int:
    from diptych.errors import FormatError
    from diptych.memory import Memory, change

    if (arguments.ids is None) == (arguments.policy is None):
        raise ConfigError("give either --ids or --policy: which cases to remove.")

    def edit(memory: Memory | None) -> Memory:
        if memory is None:
            raise FormatError(f"{arguments.memory}: there is no memory here.")
        return memory.without(arguments.ids and arguments.ids.split(","), policy=arguments.policy)

    memory = change(arguments.memory, edit)
    if arguments.json:
        as_json({"cases": len(memory.cases)})
    else:
        print(f"{len(memory.cases):,} cases are left in {arguments.memory}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from diptych.memory import Memory

    memory = Memory.load(arguments.memory)
    if arguments.json:
        learned = None if memory.learned is None else asdict(memory.learned)
        about = {"model": memory.model, "classes": memory.classes, "learned": learned}
        as_json(about | {"cases": [asdict(case) for case in memory.cases]})
        return 0
    rows = [
        (case.id, case.policy, case.label, case.added, case.picture, case.text[:60]) for case in memory.cases
    ]
    table("", ("id", "policy", "label", "added", "picture", "text"), rows)
    print(
        f"{len(rows):,} cases for the model {memory.model[:12]}, compared by {', '.join(memory.parts)}; "
        f"{_learned(memory)}"
    )
    return 0


def _learned(memory: "Memory") -> str:
    learned = memory.learned
    if learned is None:
        return "not fitted: cases change no score"
    return (
        f"similar from {learned.least:.3f}, a vote weighs {learned.weight:.2f} log-odds, learned on "
        f"{learned.examples} examples of {learned.split}"
    )


def _fit(arguments: argparse.Namespace) -> int:
    import numpy as np

    from diptych.data.inputs import checksums, digest
    from diptych.memory import FitReport, Memory, change, fit_memory

    if arguments.split is None or arguments.folds < 2 or not 0 <= arguments.harm <= 1:
        raise ConfigError(
            f"fit needs --split, labeled memes, --folds from 2 and --harm in [0, 1]; got {arguments.split}, "
            f"{arguments.folds} and {arguments.harm}."
        )
    predictor, empty = _opened_for(arguments)
    dataset = _opened(arguments, predictor)
    truth = [_number(arguments, predictor, example.id, example.target) for example in dataset]
    asked = _asked(arguments, predictor, dataset, empty)
    reports: list[FitReport] = []

    def edit(memory: Memory | None) -> Memory:
        fitted, report = fit_memory(
            _current(arguments, memory, empty, asked),
            vectors=asked.vectors,
            scores=asked.scores,
            truth=np.array(truth),
            split=dataset.split,
            checksum=digest([dataset.split, *checksums(dataset.files).values()]),
            harm=arguments.harm,
            folds=arguments.folds,
        )
        reports.append(report)
        return fitted

    memory = change(arguments.memory, edit)
    if arguments.json:
        as_json(reports[0].as_dict() | {"learned": memory.learned and _plain(memory)})
        return 0
    _show(memory, reports[0])
    return 0


def _plain(memory: "Memory") -> dict[str, Any]:
    from dataclasses import asdict

    return {} if memory.learned is None else asdict(memory.learned)


def _number(arguments: argparse.Namespace, predictor: "Predictor", id: str, target: Any) -> int:
    from diptych.memory import require_labels

    labels = require_labels(predictor)
    if target not in labels:
        raise ConfigError(
            f"example {id} of {arguments.split} has the label {target!r}; expected a class of the model: "
            f"{', '.join(labels)}."
        )
    return labels.index(target)


def _show(memory: "Memory", report: "FitReport") -> None:
    def both(name: str, pair: tuple[float, float] | None) -> list[tuple[str, str, str]]:
        return [] if pair is None else [(name, f"{pair[0]:.4f}", f"{pair[1]:.4f}")]

    rows = [
        *both("loss on the split, out of fold", report.split_loss),
        *both("AUROC on the split, out of fold", report.split_auroc),
        *both("loss on the cases, each without itself", report.case_loss),
        *both("accuracy on the cases, each without itself", report.case_accuracy),
    ]
    table("", ("", "model alone", "with memory"), rows, numbers=2)
    print(f"{_learned(memory)}; {report.touched:.1%} of them have a case that votes")
    if not report.cases:
        print("there are no cases yet, so the usual reach and weight are set; fit again when there are some")
    elif memory.learned is not None and not memory.learned.weight:
        print("the weight is 0: on these examples, the memory does more harm than good")
    for policy in report.single:
        print(f"policy {policy}: all cases have one label, so its votes only ever raise that")
