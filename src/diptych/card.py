"""The model card of a bundle: its `README.md`, in the form that the Hugging Face hub shows.

The card begins with YAML for the hub (tags, results), and goes on for people: what the weights are for, how
good they are, what they are not for. It claims nothing that the bundle does not know.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from diptych.documents import dump_yaml

PIPELINES = {"Answer": "visual-question-answering"}  # the hub's names; it has none for the other tasks
USES = {
    "Answer": "Answers to questions about a picture, from a fixed list.",
    "Choose": "The choice of one of several texts for a picture.",
    "Classify": "One label for a picture with its text.",
    "Ground": "The region of a picture that an expression refers to.",
    "Match": "Whether a text and a picture belong together, for ranking.",
    "MultiLabel": "Several labels, each of which may hold, for a picture with its text.",
    "Pretrain": "A start for training on a task; it decides nothing by itself.",
}

LIMITS = """The numbers below are of the validation split, which also chose these weights, so they are
optimistic. Other sources, languages and times give other results: measure on examples of your own (`diptych
evaluate`). Groups were not compared. Do not let it decide alone about people."""


def head(
    *, model: str, task: str, name: str, dataset: str = "", metrics: Mapping[str, float] | None = None,
    license: str | None = None,
) -> str:  # fmt: skip
    """The YAML that begins a card.

    Args:
        model, task: dotted names of the builder and the class, such as `diptych.models.uniter_base`.
        name: of the weights.
        dataset: name of the data that `metrics` were measured on; without it there are no results.
        license: the hub's identifier, such as `apache-2.0`; None leaves the line out, because the license of
            weights follows from their data and is the owner's to say.
    """
    kind = task.rpartition(".")[2]
    content: dict[str, Any] = {"library_name": "diptych"}
    if license is not None:
        content["license"] = license
    if kind in PIPELINES:
        content["pipeline_tag"] = PIPELINES[kind]
    content["tags"] = ["diptych", "vision-and-language", model.rpartition(".")[2]]
    # the hub refuses results with a number that is not finite
    found = {key: value for key, value in (metrics or {}).items() if isfinite(value)}
    if found and dataset:
        result = {
            "task": {"type": PIPELINES.get(kind, "other"), "name": kind},
            "dataset": {"type": "other", "name": dataset},
            "metrics": [{"type": key, "name": key, "value": round(value, 6)} for key, value in found.items()],
        }
        content["model-index"] = [{"name": name, "results": [result]}]
    return f"---\n{dump_yaml(content)}---\n"


def card(
    text: Mapping[str, Any],
    *,
    proofs: Mapping[str, Mapping[str, Any]] | None = None,
    license: str | None = None,
    policy: str = "",
) -> str:
    """The whole card of a bundle.

    Args:
        text: the content of `bundle.yaml`.
        proofs: golden files that the family was compared with; see `diptych.convert.certificate`.
        policy: what a policy that is published beside the weights promises.
    """
    about, metrics, task = text.get("provenance", {}), text.get("metrics", {}), text["task"]["_target_"]
    kind = task.rpartition(".")[2]
    name = str(about.get("name") or text["model"]["_target_"].rpartition(".")[2])
    validation = about.get("validation") or {}
    dataset = " ".join(str(part) for part in (about.get("root"), validation.get("split")) if part)
    begin = head(
        model=text["model"]["_target_"], task=task, name=name, license=license,
        dataset=dataset or "validation", metrics=metrics,
    )  # fmt: skip
    rows = "".join(f"| {key} | {value:.4f} |\n" for key, value in metrics.items())
    counted = f", {validation['examples']:,} examples" if validation.get("examples") else ""
    sections = {
        "Intended use": f"{USES.get(kind, 'A task of your own.')} For data like those of the training.",
        "Limits": LIMITS,
        "Metrics": f"On `{dataset or 'validation'}`{counted}:\n\n| measure | value |\n|---|---|\n{rows}"
        if rows
        else "None were measured.",
        "Calibration": policy or _calibration(text["task"]),
        "Equal to the original": _proofs(proofs or {}),
        "Training": f"```yaml\n{dump_yaml(about)}```",
    }
    body = "".join(f"\n## {title}\n\n{content.rstrip()}\n" for title, content in sections.items())
    return (
        f"{begin}\n# {name}\n\nA diptych bundle: `{text['model']['_target_']}` with the task `{task}`. Use "
        f"it with `diptych predict`, `diptych.load(folder)`, or fine-tune it: `weights.model=FOLDER`.\n{body}"
    )


def _calibration(task: Mapping[str, Any]) -> str:
    chosen = task.get("threshold")
    threshold = "" if chosen is None else f" The threshold between the labels is {chosen:.4f}."
    return f"Scores are not calibrated; `diptych calibrate` makes a policy from labeled examples.{threshold}"


def _proofs(proofs: Mapping[str, Mapping[str, Any]]) -> str:
    if not proofs:
        return "There is no golden file of this model."
    rows = "".join(
        f"| `{name}` | {entry['compared']} | {entry['worst']:.1e} |\n"
        for name, entry in sorted(proofs.items())
    )
    return (
        "The code of this family was compared with its original, for tiny random weights in fp32: outputs, "
        "losses and gradients. Differences are relative to the largest number compared, if that is "
        "above 1.\n\n"
        f"| golden | compared | largest difference |\n|---|---|---|\n{rows}"
    )
