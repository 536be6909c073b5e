"""Names of the answers of a converted head, which weight files do not have."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych.convert.settings import Setting, Settings
from diptych.errors import ConfigError

# Published tables by their number of answers.
TABLES = {
    3129: "VQA v2's trainval_label2ans.json, in data/vqa of airsplay/lxmert",
    1842: "GQA's trainval_label2ans.json, in data/gqa of airsplay/lxmert",
    9500: "all_ans.json of LXMERT's pre-training, in data/lxmert of airsplay/lxmert",
}


def answer_names(task: Mapping[str, Any]) -> tuple[str, list[str]] | None:
    """Return the setting that names the answers, of a task or of pre-training, and its value."""
    if "answers" in task:
        return "task.answers", task["answers"]
    objective = task.get("objectives", {}).get("answers")
    return None if objective is None else ("task.objectives.answers.labels", objective["labels"])


def table_setting(task: Mapping[str, Any], table: Path | str, *, where: object) -> Settings:
    """Return the setting that names the answers of a task from a table.

    Args:
        table: file that `diptych.datasets.answer_table` reads.
        where: the weights, for error messages.

    Raises:
        ConfigError: the task has no answers, or another number of them.
        FormatError: the table cannot be read.
    """
    from diptych.datasets.answer_table import read_answers  # loads pyarrow

    # A list of the wrong length would give every answer the name of another one.
    named, answers = answer_names(task), read_answers(Path(table))
    if named is None:
        raise ConfigError(f"{where}: has no answer head that {table} could name; omit the table.")
    count = len(named[1])
    if count != len(answers):
        known = f" {TABLES[count]}, has that number." if count in TABLES else ""
        raise ConfigError(f"{where}: the head has {count} answers, but {table} has {len(answers)}.{known}")
    return {named[0]: Setting([*answers], f"the table {Path(table).name}")}


def warn_of_numbers(task: Mapping[str, Any], source: Path | str) -> None:
    """Warn if the answers of a published table stayed numbers."""
    named = answer_names(task)
    # Only for published numbers of answers, for which we can name the table to get.
    if named is not None and named[1][:1] == ["0"] and len(named[1]) in TABLES:
        warnings.warn(
            f"{source}: the {len(named[1])} answers of the bundle are numbers. Convert it again with "
            f"--answers FILE: {TABLES[len(named[1])]}.",
            stacklevel=4,  # the caller of `convert_checkpoint`
        )
