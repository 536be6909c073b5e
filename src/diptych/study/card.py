"""Run card of a study: training data, scores and blend, written as README.md of the study's folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from diptych.ensemble import read_predictions
from diptych.files import atomic_file, require_new
from diptych.metrics import auroc, bootstrap_interval
from diptych.study.graph import Step
from diptych.study.run import Report

Areas = Mapping[str, tuple[float, float, float]]


def write_card(report: Report) -> Path:
    """Write `README.md` of a study that was run and measured; returns its path."""
    path = report.graph.out / "README.md"
    # Replaces an older card of a study, but no README of the user's.
    require_new(path, overwrite=True, kind="a run card")
    with atomic_file(path, "w", encoding="utf-8") as file:
        file.write("\n".join(_lines(report)) + "\n")
    return path


def _lines(report: Report) -> Iterator[str]:
    study, graph = report.graph.study, report.graph
    yield f"# Study {study.name}\n"
    yield f"Data: `{graph.root}`{f', the first {graph.limit} memes of every split' if graph.limit else ''}."
    if study.compat:
        yield "Blended with Vilio's arithmetic (`compat`): scores are not probabilities."
    if any(step.kind == "pretrain" for step in graph.steps.values()):
        yield (
            "Transductive: members were also pre-trained on texts and pictures of the dev splits, without "
            "labels; this raises their scores on dev."
        )
    yield "\n## Training\n\n| step | key | seed | memes | steps | features | seconds |"
    yield "|---|---|---|---|---|---|---|"
    for step in graph.steps.values():
        if step.kind in ("pretrain", "train"):
            yield _training_row(report, step)
    if study.links:
        yield from _results(report)
    else:
        yield from _members(report)
        yield from _blend(report)
    missing = [f"{name}: {report.records[name].error}" for name in report.failed]
    if missing or study.left_out:
        yield "\n## Missing\n"
        yield from (f"- failed, {line.splitlines()[0]}" for line in missing)
        if study.left_out:
            yield f"- not selected: {', '.join(study.left_out)}"


def _results(report: Report) -> Iterator[str]:
    """What the runs of a chain reached on their own validation splits."""
    yield "\n## Measures\n\n| step | measure | value |\n|---|---|---|"
    for name, record in report.records.items():
        for measured, value in record.facts.get("metrics", {}).items():
            yield f"| {name} | {measured} | {value:.4f} |"


def _training_row(report: Report, step: Step) -> str:
    record, settings = report.records.get(step.name), step.settings
    features = Path(settings["features"] or "none").name
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
    yield f"\n## AUROC on {report.graph.study.dev}\n\n| | AUROC | 95 % interval |\n|---|---|---|"
    for name, (area, low, high) in report.areas.items():
        yield f"| {name} | {area:.4f} | {low:.4f} to {high:.4f} |"


def measure(report: Report) -> Areas:
    """Compute the AUROC on dev, with its interval, of every member and family not trained on dev.

    Returns:
        (AUROC, low, high) by MEMBER/RUN and FAMILY/average; empty of a chain, and if dev has a single class.
    """
    graph, dev = report.graph, report.graph.study.dev
    areas: dict[str, tuple[float, float, float]] = {}
    if graph.study.links:
        return areas
    truth = graph.data.open(graph.root, dev, limit=graph.limit).truth()
    # Without both classes there is no AUROC; a `limit` may cause that.
    if len(set(truth.values())) < 2:
        return {}
    for name, step in graph.steps.items():
        # runs that train on dev do not predict it, so they have no such file
        if step.kind in ("predict", "average") and (step.folder / f"{dev}.npz").exists():
            predictions = read_predictions(step.folder / f"{dev}.npz")
            labels = np.array([truth[key] == 1 for key in predictions.ids])
            scores = predictions.column((predictions.classes or ())[-1])
            short = name.removesuffix("/predict")
            areas[short] = (auroc(labels, scores), *bootstrap_interval(labels, scores, auroc))
    return areas


def _blend(report: Report) -> Iterator[str]:
    record = report.records.get("ensemble")
    yield "\n## Blend\n"
    if record is None or record.state == "failed":
        yield f"None: {'no family is complete' if record is None else record.error}"
        return
    facts = record.facts
    yield f"Method `{facts['method']}`, fitted on the {facts['rows']} memes of {facts['dev']}."
    yield "In-sample AUROC {:.4f} ({:.4f} to {:.4f}), which is optimistic.".format(*facts["in_sample"])
    # The in-sample number alone would promise too much.
    if (fold := facts["out_of_fold"]) is None:
        yield "No out-of-fold estimate: a class has fewer than two memes."
    else:
        areas = report.areas
        # Averages included: the blend has to beat what one gets without fitting.
        name = max(areas, key=lambda member: areas[member][0])
        verdict = "beats" if fold[0] > areas[name][0] else "does not beat"
        yield "Out-of-fold AUROC {:.4f} ({:.4f} to {:.4f}).".format(*fold)
        yield f"Out of fold, it {verdict} {name} ({areas[name][0]:.4f}), the best in the table above."
    yield "\nFiles: `FIN_SPLIT.csv` beside this card; `report.json`, with weights, in the ensemble's folder."
