"""The page of runs: results with intervals, seeds, curves, certificates, settings, and an audit."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych import __version__
from diptych.audit import Audit, RunFolder
from diptych.convert import FAMILIES, certificate
from diptych.data.inputs import digest
from diptych.datasets import Split
from diptych.documents import read_yaml
from diptych.errors import FormatError
from diptych.evaluate import Estimate, Evaluation, evaluate, repeated
from diptych.metrics import measure_named
from diptych.predictions import Predictions
from diptych.report.audit import audit_sections
from diptych.report.figures import curves, line_style
from diptych.report.markup import (
    drawn_image,
    interval,
    interval_figure,
    paragraph,
    plain,
    section,
    table,
    write_page,
)
from diptych.report.seeds import paired_tables, seed_tables
from diptych.report.style import drawing

# Where a run lies, which seed it has and what it prints do not make another recipe of it.
NO_RECIPE = (
    "seed",
    "out",
    "root",
    "progress",
    "loggers",
    "overwrite",
    "features",
    "more_features",
    "vocabulary",
)
DRAWN = 7  # classifiers in one figure of curves, as many as there are colors
CURVES = "the curves of the runs; the tables have their numbers"
SETTINGS = {  # shown of a recipe, by title
    "model": ("model", "_target_"),
    "trained on": ("data", "train", "split"),
    "batch size": ("data", "batch_size"),
    "optimizer": ("optim", "_target_"),
    "learning rate": ("optim", "lr"),
    "epochs": ("trainer", "max_epochs"),
    "steps, at most": ("trainer", "max_steps"),
    "precision": ("trainer", "precision"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A run with its recipe.

    Args:
        recipe: name, equal for runs that differ in their seed only.
        name: of the run itself.
        about: provenance of its bundle; empty for a run that has not ended.
    """

    folder: RunFolder
    recipe: str
    name: str
    about: Mapping[str, Any]


def reported(runs: Sequence[RunFolder]) -> list[Reported]:
    """Name runs and their recipes.

    Raises:
        FormatError: the bundle of a run is damaged.
    """
    recipes: dict[str, str] = {}
    names: dict[str, int] = {}
    found = []
    for run in runs:
        key = digest(_without_places(run.config))
        if key not in recipes:
            base = str(run.config.get("name") or run.path.name)
            names[base] = names.get(base, 0) + 1
            # Two recipes of one experiment, such as with other learning rates.
            recipes[key] = base if names[base] == 1 else f"{base} ({names[base]})"
        found.append(Reported(folder=run, recipe=recipes[key], name=run.path.name, about=_about(run)))
    if len({one.name for one in found}) < len(found):
        # Members of a study lie at MEMBER/RUN: the last part alone repeats.
        found = [
            Reported(
                folder=one.folder,
                recipe=one.recipe,
                name="/".join(one.folder.path.parts[-2:]),
                about=one.about,
            )
            for one in found
        ]
    return found


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in config.items() if name not in NO_RECIPE}
    data = config["data"]
    nodes = {
        name: {k: v for k, v in node.items() if k != "root"} if isinstance(node, dict) else node
        for name, node in data.items()
    }
    # The vocabulary is found from the data, so its path says nothing but where they lie.
    kept["processor"] = {k: v for k, v in (config.get("processor") or {}).items() if k != "text"}
    return kept | {"data": nodes}


def _about(run: RunFolder) -> Mapping[str, Any]:
    file = run.path / "bundle" / "bundle.yaml"
    if not file.is_file():
        return {}
    about = read_yaml(file, dict[str, Any]).get("provenance", {})
    if not isinstance(about, dict):
        raise FormatError(f"{file}: provenance is {about!r}; expected the facts of a run.")
    return about


def report_page(
    runs: Sequence[RunFolder],
    path: Path | str,
    *,
    open_split: Callable[[str], Split],
    cards: Mapping[str, str] | None = None,
    blends: Mapping[str, Mapping[str, Predictions]] | None = None,
    audit: Audit | None = None,
    samples: int = 2000,
) -> list[str]:
    """Write a page about runs on one data set.

    Args:
        open_split: opens a split with its labels, if there are any.
        cards: texts of the run cards of studies, by name.
        blends: further predictions by name and split, such as blends.
        audit: of the data set.
        samples: bootstrap resamples.

    Returns:
        What is left out, in sentences.
    """
    named = reported(runs)
    left = [f"{one.name} has not ended, so it has no bundle" for one in named if not one.about]
    body = [section("Recipes", _recipes(named))]
    for split, dataset in _splits(named, blends or {}, open_split, left):
        body += _results(split, dataset, named, blends or {}, samples)
    if (drawn := _learning(named)) is not None:
        body.append(section("Training", drawn))
    body += _certificates(named)
    body += [section(f"Study {name}", f"<pre>{plain(card)}</pre>") for name, card in (cards or {}).items()]
    if audit is not None:
        # The headings of an audit do not say that they are its own.
        body += [part.replace("<h2>", "<h2>Audit: ", 1) for part in audit_sections(audit)]
    if left:
        body.append(section("Left out", *map(paragraph, left)))
    note = f"{len(named)} runs, {len({one.recipe for one in named})} recipes; made by diptych {__version__}"
    write_page(
        path,
        "".join(body),
        kind="report",
        title=f"Report of {', '.join(dict.fromkeys(one.recipe for one in named))}"[:100],
        note=note,
    )
    return left


def _recipes(named: Sequence[Reported]) -> str:
    rows = []
    for recipe in dict.fromkeys(one.recipe for one in named):
        own = [one for one in named if one.recipe == recipe]
        seeds = ", ".join(str(one.folder.config.get("seed", "?")) for one in own)
        values = [
            str(_at(own[0].folder.config, *keys)).removeprefix("diptych.") for keys in SETTINGS.values()
        ]
        trained = own[0].about.get("training")
        examples = trained.get("examples", "") if isinstance(trained, dict) else ""
        rows.append((recipe, seeds, *("" if value == "None" else value for value in values), str(examples)))
    # One row per fact: recipes are few, and a page is narrow.
    titles = ("seeds", *SETTINGS, "training examples")
    turned = [(title, *(row[at] for row in rows)) for at, title in enumerate(titles, 1)]
    return table(("", *(row[0] for row in rows)), turned)


def _at(config: Any, *keys: str) -> Any:
    for key in keys:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def _splits(
    named: Sequence[Reported],
    blends: Mapping[str, Mapping[str, Predictions]],
    open_split: Callable[[str], Split],
    left: list[str],
) -> Iterator[tuple[str, Split]]:
    """The labeled splits that at least one run has predicted, in order of their first prediction."""
    places = [one.folder.predictions for one in named] + [*blends.values()]
    for split in dict.fromkeys(split for place in places for split in place):
        dataset = open_split(split)
        if any(example.target is not None for example in dataset):
            yield split, dataset
        else:
            left.append(f"{split} has no labels, so its predictions are not measured")


def _results(
    split: str,
    dataset: Split,
    named: Sequence[Reported],
    blends: Mapping[str, Mapping[str, Predictions]],
    samples: int,
) -> Iterator[str]:
    files = {one.name: one for one in named if split in one.folder.predictions}
    scored = {name: _read(one.folder.predictions[split]) for name, one in files.items()}
    by_recipe: dict[str, dict[str, Predictions]] = {}
    for name, one in files.items():
        by_recipe.setdefault(one.recipe, {})[name] = scored[name]
    recipes = {recipe: [*runs.values()] for recipe, runs in by_recipe.items()}
    blended = {name: by_split[split] for name, by_split in blends.items() if split in by_split}
    results = {
        name: evaluate(one, dataset, positive=dataset.positive, samples=samples)
        for name, one in (scored | blended).items()
    }
    # Every form puts its main measure first.
    main = next(iter(next(iter(results.values())).metrics))
    title = measure_named(main).title
    rows = [(name, result[main]) for name, result in results.items() if main in result.metrics]
    chance = 0.5 if main == "auroc" else None
    figure = interval_figure(rows, f"{title} on {split}, with 95 % intervals over examples", chance=chance)
    yield section(f"Results on {split}", figure, _measures(results))
    together = repeated(
        recipes | {name: [one] for name, one in blended.items()},
        dataset,
        positive=dataset.positive,
        samples=samples,
    )
    # One run has neither a spread nor a rival.
    if len(together.recipes) > 1 or len(named) > 1:
        yield section(
            f"Seeds and differences on {split}",
            *seed_tables(together),
            *paired_tables(by_recipe, dataset, positive=dataset.positive, samples=samples),
        )
    if next(iter(results.values())).form == "binary":
        firsts = {
            name: runs[0]
            for name, runs in [*recipes.items(), *((k, [v]) for k, v in blended.items())][:DRAWN]
        }
        yield section(
            f"Curves on {split}",
            drawn_image(
                lambda place: curves(
                    firsts, dataset, place, positive=dataset.positive, samples=min(samples, 200)
                ),
                CURVES,
            ),
        )


def _read(path: Path) -> Predictions:
    from diptych.ensemble import read_predictions

    return read_predictions(path)


def _measures(results: Mapping[str, Evaluation]) -> str:
    names = list(dict.fromkeys(name for result in results.values() for name in result.metrics))[:6]
    # Runs of different tasks may have different measures.
    blank = Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    rows = [
        (run, *(interval(result.metrics.get(name, blank)) for name in names))
        for run, result in results.items()
    ]
    return table(
        ("run", *(measure_named(name).title for name in names)), rows, numbers=range(1, len(names) + 1)
    )


def _learning(named: Sequence[Reported]) -> str | None:
    """Losses and the main validation measure over steps, one line per run."""
    shown = [one for one in named if one.folder.rows]
    if not shown:
        return None

    def draw(place: Path) -> None:
        with drawing(place, width=11.2, height=3.8 + 0.2 * math.ceil(len(shown) / 3)) as figure:
            grid = figure.add_gridspec(
                1, 2, left=0.06, right=0.985, top=0.92, bottom=1 - 3.3 / figure.get_figheight()
            )
            left, right = (figure.add_subplot(grid[0, column]) for column in (0, 1))
            for number, one in enumerate(shown):
                measure = f"val/{one.folder.measure}"
                for axes, name in ((left, "train/loss"), (right, measure)):
                    points = [
                        (row["step"], row[name]) for row in one.folder.rows if name in row and "step" in row
                    ]
                    if points:
                        label = one.name if axes is left else None
                        axes.plot(*zip(*points, strict=True), label=label, **line_style(number))
            left.set(title="Training loss", xlabel="step")
            measures = sorted({one.folder.measure for one in shown if one.folder.measure})
            right.set(
                title=f"Validation: {', '.join(measure_named(name).title for name in measures)}",
                xlabel="step",
            )
            figure.legend(loc="lower left", ncols=3, bbox_to_anchor=(0.04, 0.0), handlelength=3)

    return drawn_image(draw, CURVES)


def _certificates(named: Sequence[Reported]) -> Iterator[str]:
    models = {str(_at(one.folder.config, "model", "_target_")).rpartition(".")[2] for one in named}
    for family in FAMILIES:
        entries = certificate(family.name)
        # `uniter_base` is of the family `uniter`.
        if entries and any(model.split("_")[0] == family.name for model in models):
            rows = [
                (name, f"{one['compared']:,}", f"{one['worst']:.1e}") for name, one in sorted(entries.items())
            ]
            yield section(
                f"Certificate of {family.title}",
                table(
                    ("reference output of the original", "numbers compared", "largest difference"),
                    rows,
                    numbers=(1, 2),
                ),
                paragraph(
                    "Outputs, losses and gradients for tiny random weights in fp32, compared with the "
                    "original program; relative to the largest number if that is above 1.",
                    note=True,
                ),
            )
