"""Whether the explanations of a model can be believed: `diptych explain RUN --check`."""

import argparse
import json
import math
from typing import TYPE_CHECKING

from diptych.cli.output import table
from diptych.cli.subject import Reader, subject
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.evaluate import Estimate
    from diptych.explain import Budget, Checked, Share
    from diptych.types import Dataset

SWAPS = {
    "picture": "the picture of the meme with the other label",
    "text": "the text of the meme with the other label",
    "subject": "only the regions that decide are those of the other picture",
    "scenery": "all other regions are those of the other picture",
}


def check_explanations(arguments: argparse.Namespace) -> int:
    """Explain the first examples of a split, check the explanations, and print what was found."""
    from diptych.explain import Budget
    from diptych.files import atomic_file, require_new
    from diptych.study import is_study

    if arguments.split is None or arguments.images or arguments.attention or arguments.out is not None:
        raise ConfigError(
            "--check takes examples of --split, and neither pictures nor --attention nor --out; add --json "
            "FILE or --plot FILE for a file."
        )
    if is_study(arguments.run):
        raise ConfigError(f"{arguments.run} is a study; give --check the folder of a member.")
    if arguments.limit < 1:
        raise ConfigError(f"--limit is {arguments.limit}; expected at least 1.")
    for place, kind in ((arguments.json, "a JSON file"), (arguments.plot, "a PNG picture")):
        if place is not None:
            require_new(place, kind=kind, overwrite=arguments.overwrite)
    budget = Budget(permutations=arguments.permutations, groups=arguments.groups, seed=arguments.seed)
    # Without ids, all examples of the split are opened, and none is read before its turn.
    arguments.batch = arguments.ids is None
    with subject(arguments) as asked:
        assert asked.dataset is not None, "--split was given"
        found = _checked(asked.first, asked.dataset, budget, arguments)
    _say(found)
    if arguments.json is not None:
        with atomic_file(arguments.json, "w", encoding="utf-8") as file:
            file.write(f"{json.dumps(found.as_dict(), indent=1, allow_nan=False)}\n")
        print(f"wrote {arguments.json}")
    if arguments.plot is not None:
        from diptych.report import removal_chart

        removal_chart(found, arguments.plot)
        print(f"wrote {arguments.plot}")
    return 0


def _checked(
    reader: Reader, dataset: "Dataset", budget: "Budget", arguments: argparse.Namespace
) -> "Checked":
    from diptych.explain import Variants, check, read_truth
    from diptych.predict import root_of_run

    examples = reader.examples[: arguments.limit]
    truths = read_truth(root_of_run(arguments.run, arguments.root))
    memes = {one.id: one for one in (dataset[at] for at in range(len(dataset)))} if truths else None
    return check(
        (Variants(reader.predictor, one, reader.sources, budget) for one in examples),
        truths=truths or None,
        memes=memes,
        seed=arguments.seed,
    )


def _say(found: "Checked") -> None:
    print(
        f"{found.examples} examples; {found.defaults} of them are answered without any evidence as with it.\n"
    )
    if found.curves:
        rows = [
            (name, *(_interval(one[name]) for one in (found.deletion, found.insertion, found.margin)))
            for name in found.curves
        ]
        table(
            "what counts most is hidden first, or shown first",
            ("", "deletion", "insertion", "margin"),
            rows,
            numbers=3,
        )
        print("areas under the probability of the answer: deletion should be small, insertion large.\n")
    if found.sanity:
        stages = [*next(iter(found.sanity.values()))]
        rows = [(name, *(f"{one[stage]:.2f}" for stage in stages)) for name, one in found.sanity.items()]
        table("rank correlation after shuffling the weights of", ("", *stages), rows, numbers=len(stages))
        print("near 0 is good: an explanation that stays explains the input, and not the model.\n")
    if found.swaps:
        rows = [(SWAPS[name], _share(one)) for name, one in found.swaps.items()]
        table("the evidence is known: the answer changes with", ("", "memes"), rows, numbers=1)
    sides = (found.words, found.areas)
    if any(sides):
        rows = [
            (name, *(_share(one[name]) if name in one else "none" for one in sides))
            for name in found.words | found.areas
        ]
        rows.append(("chance", *(_number(found.chance.get(name, math.nan)) for name in ("word", "area"))))
        table("what counts most decides", ("", "word", "area"), rows, numbers=2)


def _interval(value: "Estimate") -> str:
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _share(share: "Share") -> str:
    return f"{share.value:.2f} ({share.count} of {share.total})"


def _number(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.2f}"
