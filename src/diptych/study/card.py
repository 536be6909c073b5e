"""The run card: what was trained on what, and how good it is, as README.md of the study's folder."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diptych.datasets import HatefulMemes
from diptych.ensemble import read_predictions
from diptych.errors import DiptychError
from diptych.files import atomic_file
from diptych.metrics import auroc, bootstrap_interval
from diptych.study.graph import Step
from diptych.study.run import Report


def write_card(report: Report) -> Path:
    """Write `README.md` of a study that was run."""
    path = report.graph.out / "README.md"
    with atomic_file(path, "w", encoding="utf-8") as file:
        file.write("\n".join(_lines(report)) + "\n")
    return path


def _lines(report: Report) -> Iterator[str]:
    study, graph = report.graph.study, report.graph
    yield f"# Study {study.name}\n"
    yield f"Data: `{graph.root}`{f', the first {graph.limit} memes of every split' if graph.limit else ''}."
    if study.compat:
        yield "Blended with Vilio's arithmetic (`compat`): scores are no probabilities."
    if any(step.kind == "pretrain" for step in graph.steps.values()):
        yield (
            "Transductive: members were pre-trained on texts and pictures of the dev splits too, without "
            "their labels; that helps their scores on dev."
        )
    yield "\n## Training\n\n| step | key | seed | memes | steps | features | seconds |"
    yield "|---|---|---|---|---|---|---|"
    for step in graph.steps.values():
        if step.kind in ("pretrain", "train"):
            yield _training_row(report, step)
    yield from _members(report)
    yield from _blend(report)
    missing = [f"{name}: {report.records[name].error}" for name in report.failed]
    if missing or study.left_out:
        yield "\n## Missing\n"
        yield from (f"- failed, {line.splitlines()[0]}" for line in missing)
        if study.left_out:
            yield f"- not asked for: {', '.join(study.left_out)}"


def _training_row(report: Report, step: Step) -> str:
    record, settings = report.records.get(step.name), step.settings
    features = Path(settings["features"]).name
    if settings["more_features"] is not None:
        features += f" + {Path(settings['more_features']).name}"
    facts = {} if record is None else record.facts
    cells = (
        step.name,
        f"`{step.key}`",
        settings["seed"],
        facts.get("examples", "-"),
        facts.get("steps", "-"),
        features,
        "not done" if record is None or record.state == "failed" else record.seconds,
    )
    return f"| {' | '.join(map(str, cells))} |"


def _members(report: Report) -> Iterator[str]:
    """AUROC of every member and family on dev, which their training has not seen."""
    graph, dev = report.graph, report.graph.study.dev
    truth = {meme.id: meme.label for meme in HatefulMemes(graph.root, dev, limit=graph.limit).memes}
    yield f"\n## AUROC on {dev}\n\n| | AUROC | 95 % interval |\n|---|---|---|"
    for name, step in graph.steps.items():
        if step.kind in ("predict", "average") and (step.folder / f"{dev}.npz").exists():
            predictions = read_predictions(step.folder / f"{dev}.npz")
            labels = np.array([truth[key] == 1 for key in predictions.ids])
            scores = predictions.column((predictions.classes or ())[-1])
            try:
                low, high = bootstrap_interval(labels, scores, auroc)
                yield f"| {name} | {auroc(labels, scores):.4f} | {low:.4f} to {high:.4f} |"
            except DiptychError as error:
                yield f"| {name} | {error} | |"


def _blend(report: Report) -> Iterator[str]:
    record = report.records.get("ensemble")
    yield "\n## Blend\n"
    if record is None or record.state == "failed":
        yield f"None: {'no family is complete' if record is None else record.error}"
        return
    facts = record.facts
    name, area = facts["best_member"]
    yield f"Method `{facts['method']}`, fitted on the {facts['rows']} memes of {facts['dev']}."
    yield "In-sample AUROC {:.4f} ({:.4f} to {:.4f}), which flatters.".format(*facts["in_sample"])
    if (fold := facts["out_of_fold"]) is None:
        yield "No out-of-fold estimate: a class has fewer than two memes."
        return
    yield "Out-of-fold AUROC {:.4f} ({:.4f} to {:.4f}).".format(*fold)
    verdict = "beats" if fold[0] > area else "does not beat"
    yield f"Out of fold, it {verdict} its best family average {name} ({area:.4f})."
    yield "\nFiles: `FIN_SPLIT.csv` beside this card; `report.json` with weights in the ensemble's folder."
