"""Chains: studies of runs that start from earlier ones, without an ensemble.

    name: mine
    extends: mmbert_chain                      # another chain, whose keys this one changes
    features: {regions: features/regions}      # stores, below the data set
    vocabulary: vocab.txt                      # below the data set, or auto
    overrides: []                              # of all steps, as `diptych train` takes them
    steps:
      b: {experiment: pretrain/mmbert_task_b, features: regions, seed: 1, overrides: []}
      c: {experiment: pretrain/mmbert_task_c, root: wmt14, start: [b]}     # root: below the data set
      bcb: {experiment: pretrain/mmbert_task_b, features: regions, start: [b, c]}

`steps` is required, and in each step `experiment`. Of the weights in `start`, later ones replace what earlier
ones gave.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Required

from typing_extensions import TypedDict

from diptych.documents import check_shape, closed
from diptych.errors import ConfigError, nearest
from diptych.files import require_name


@closed
class LinkNode(TypedDict, total=False):
    """YAML of a step, below `steps`."""

    experiment: Required[str]
    root: str | None
    start: list[str] | None
    features: str | None
    seed: int
    overrides: list[str] | None


@closed
class ChainNode(TypedDict, total=False):
    """YAML of a chain."""

    name: str | None
    extends: str | None
    features: dict[str, str] | None
    vocabulary: str | None
    overrides: list[str] | None
    steps: Required[dict[str, LinkNode | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One run of a chain.

    Args:
        root: folder of its data set, relative to that of the study.
        start: names of the earlier steps whose weights it starts from, in the order of loading.
        features: name of a store in `Study.features`.
        vocabulary: file relative to the data set of the study, or `auto`.
        overrides: overrides of `diptych train`.
    """

    name: str
    experiment: str
    root: str
    start: tuple[str, ...]
    features: str | None
    vocabulary: str | None
    seed: int
    overrides: tuple[str, ...]


def read_chain(tree: object, path: Path) -> dict[str, Any]:
    """Check the YAML of a chain; returns name, features and links of the study.

    Raises:
        FormatError: a key is missing or unknown, or a value of the wrong type (names the key).
        ConfigError: a name is no name of a file, or a step starts from one that is not before it.
    """
    node = check_shape(tree, ChainNode, where=path)
    stores, links = node.get("features") or {}, dict[str, Link]()
    for name, step in node["steps"].items():
        if step is None:  # null removes a step of the extended chain
            continue
        where = f"{path}: steps.{require_name(name, f'{path}: a step')}"
        start, store = tuple(step.get("start") or ()), step.get("features")
        if unknown := [one for one in start if one not in links]:
            raise ConfigError(
                f"{where}.start names {unknown[0]!r}.{nearest(unknown[0], links)} Expected steps before it: "
                f"{', '.join(links) or 'none'}."
            )
        if store is not None and store not in stores:
            raise ConfigError(
                f"{where}.features is {store!r}.{nearest(store, stores)} Expected: {', '.join(stores)}."
            )
        links[name] = Link(
            name=name,
            experiment=step["experiment"],
            root=step.get("root") or ".",
            start=start,
            features=store,
            vocabulary=node.get("vocabulary"),
            seed=step.get("seed", 1),
            overrides=(*(node.get("overrides") or ()), *(step.get("overrides") or ())),
        )
    name = require_name(node.get("name") or path.stem, f"{path}: name")
    return {"name": name, "features": stores, "links": tuple(links.values())}


def with_starts(links: Sequence[Link], names: Collection[str]) -> tuple[Link, ...]:
    """The steps with these names and those that they start from; all if there are no names."""
    wanted = set(names or [link.name for link in links])
    for link in reversed(links):  # a step starts from earlier ones only
        if link.name in wanted:
            wanted.update(link.start)
    return tuple(link for link in links if link.name in wanted)
