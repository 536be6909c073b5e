"""Refuse settings that no part of a run would read: a result would be credited to what did nothing.

Sizes and counts are defaults for what is learned, such as `vocabulary_size` or `fasttext.dim`, and may stay
where nothing is learned.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych.data import Processor, refuse_unread
from diptych.errors import ConfigError


def require_read(config: Mapping[str, Any], processor: Processor) -> None:
    """Check that the files and rules that a person has set are for this model.

    Raises:
        ConfigError: the model reads no such input, or a rule has nothing to decide.
    """
    features, more = config["features"], config["more_features"]
    # Every run has the default, a folder that need not exist.
    usual = isinstance(features, str) and Path(features) == Path(config["root"]) / "features"
    refuse_unread(processor, features=None if usual else features, more_features=more)
    files = {
        "vocabulary": (config["vocabulary"], processor.text, "texts by their tokens"),
        "fasttext.path": (config["fasttext"].get("path"), processor.vectors, "sentence vectors of fastText"),
    }
    for name, (file, reader, what) in files.items():
        if reader is None and file not in (None, "auto"):
            raise ConfigError(
                f"{name} is {file}, but the model does not read {what}, so nothing would read the file; "
                "remove it, or choose another model."
            )
    if more is None and config["region_merge"] != "vilio":
        raise ConfigError(
            f"region_merge is {config['region_merge']}, but there is one store; set more_features=STORE."
        )
    task = config["task"]
    if task.get("soft_share", 1.0) != 1.0 and not task.get("soft_targets"):
        raise ConfigError(
            f"task.soft_share is {task['soft_share']}, but there are no soft targets to share with; set "
            "task.soft_targets=FILE."
        )
