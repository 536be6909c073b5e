"""The blend of a study, fitted once and kept, for many memes one after the other."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from diptych.ensemble import fit_once
from diptych.errors import ConfigError
from diptych.predictions import Predictions
from diptych.study.score import Tree, averaged, dev_of


class StudyBlend:
    """From the predictions of the members of a study to those of its blend, as in its FIN files.

    Args:
        source: the folder of a study that was run.
        tree: its list of members.
    """

    def __init__(self, source: Path, tree: Tree) -> None:
        self.tree = tree
        # The search takes seconds, so it is done once and not for every meme.
        self.fitted = fit_once(dev_of(source, tree), tree["labels"], dev="dev", method=tree["method"])

    def __call__(self, members: Mapping[str, Predictions]) -> Predictions:
        """Blend the members' predictions of the same examples.

        Raises:
            ConfigError: a member has no scores.
        """
        wide = {name: _wide(one) for name, one in members.items()}
        families = averaged(self.tree, wide)
        columns = np.stack(
            [families[name].column((families[name].classes or ("",))[-1]) for name in self.fitted.names]
        )
        scores = self.fitted(columns)
        first = next(iter(wide.values()))
        negative, positive = first.classes or ("0", "1")
        return Predictions(
            ids=first.ids,
            scores=np.stack([1 - scores, scores], axis=1),
            answers=tuple(positive if score >= self.fitted.threshold else negative for score in scores),
            classes=(negative, positive),
        )


def _wide(found: Predictions) -> Predictions:
    # In double precision, as the files are read that the blend was fitted on.
    if found.scores is None:
        raise ConfigError("a member gives answers without scores; it cannot be blended.")
    return replace(found, scores=found.scores.astype(np.float64))
