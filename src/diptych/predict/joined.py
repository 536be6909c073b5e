"""Joins the predictions of several runs into one official file (VCR: answers and rationales)."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.errors import ConfigError
from diptych.files import claimed, reserved
from diptych.predict.splits import KIND, SplitFiles, predicted_before
from diptych.predictions import Predictions

if TYPE_CHECKING:
    from diptych.datasets import Data, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedFiles:
    """Predictions of several runs for one split.

    Args:
        dataset: the split with the examples of all runs.
        file: file in the data set's official format; the `.npz` with all scores is beside it.
    """

    dataset: "Split"
    file: Path
    predictions: Predictions


def joined_data(sets: Sequence["Data"]) -> "Data":
    """The data set of joint predictions, by the rule `Split.join` of the data set of the runs.

    Raises:
        ConfigError: the runs were trained on different data sets, or theirs has no such rule.
    """
    from diptych.datasets import Data  # imports pyarrow, which predictions without splits do not need

    if len({data.kind for data in sets}) > 1:
        names = ", ".join(data.kind.name for data in sets)
        raise ConfigError(f"the runs were trained on {names}; expected runs on one data set.")
    settings = sets[0].kind.join([data.settings for data in sets])
    node = {"_target_": sets[0].node["_target_"], **settings}
    return Data(node=node, why="the runs", trust=sets[0].trust)


def join_splits(
    results: Sequence[Sequence[SplitFiles]], data: "Data", *, root: Path, out: Path, overwrite: bool = False
) -> list[JoinedFiles]:
    """Write the official file and the `.npz` of every split that all runs have predicted.

    Args:
        results: what `predict_splits` returned for each run.
        data: see `joined_data`.
        out: folder of the files. Files that were made of the same predictions are kept.

    Raises:
        ConfigError: the runs have no split in common, or a file with other inputs exists.
        FormatError: the predictions are not those of the split.
    """
    by_split = [{files.split: files.predictions for files in one} for one in results]
    # A file of a split that one run lacks would have holes.
    shared = [split for split in by_split[0] if all(split in one for one in by_split)]
    if not shared:
        raise ConfigError(f"the runs share none of the splits {[[*one] for one in by_split]}; set --splits.")
    joined = []
    for split in shared:
        parts = [one[split] for one in by_split]
        dataset = data.open(root.absolute(), split)
        # What the parts were made of, so that predictions of other runs are noticed as a conflict.
        made_of = {f"run {number}": part.meta.get("made_of") for number, part in enumerate(parts, 1)}
        file, stored = out / f"{split}{dataset.suffix}", out / f"{split}.npz"
        with ExitStack() as stack:
            done = None if overwrite else predicted_before(stored, made_of)
            # Both are locked before either is written: two processes cannot write one file each.
            for path in (stored, file):
                keep = done is not None and path.exists()
                stack.enter_context(claimed(path) if keep else reserved(path, overwrite=overwrite, kind=KIND))
            if done is None:
                about = {
                    "bundle": [part.meta.get("bundle") for part in parts],
                    "split": split,
                    "data": dataset.node,
                    "made_of": made_of,
                }
                done = replace(Predictions.concat(parts).align(dataset.ids), meta=about)
                done.save(stored)
            # A process that was killed between the two left the `.npz` alone.
            if overwrite or not file.exists():
                dataset.write(done, file)
        joined.append(JoinedFiles(dataset=dataset, file=file, predictions=done))
    return joined
