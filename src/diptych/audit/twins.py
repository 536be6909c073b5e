"""Copies across splits, confounders, and copies whose labels disagree.

A *copy* has the same text and the same picture. A *picture twin* has the same picture, whatever its words; a
*text twin* has the same text. "Same" is nearly the same: see `pictures` and `texts`. A twin of another label
is a confounder: the side that both share cannot tell their labels apart.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from pathlib import Path

from diptych.audit.pictures import Alike, Grids, alike, read_grids
from diptych.audit.sheet import Sheet
from diptych.audit.texts import alike_texts, plain
from diptych.types import Progress

Key = tuple[int, str | None]  # split and label
SHOWN = 5  # copies that are named


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What a split shares with an earlier one, or with itself.

    Args:
        ids: examples of `second` whose id is in `first`, too. They do not count in the other fields.
        copies: examples of `second` with a copy in `first`.
        contradicting: those among them that have a copy of another label.
        pictures: examples of `second` with a picture twin in `first`; `texts`, with a text twin.
        count: examples of `second`.
        examples: the first copies, as `second's id = first's id`.
        known: whether the splits share examples by design.
    """

    first: str
    second: str
    count: int
    ids: int
    copies: int
    contradicting: int
    pictures: int
    texts: int
    examples: tuple[str, ...]
    known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Confounded:
    """Examples of a labeled split that have a confounder in any split.

    Args:
        by_picture: examples with a picture twin of another label; `by_text`, with a text twin.
        both: examples that have one of each: neither side alone decides.
    """

    split: str
    count: int
    by_picture: int
    by_text: int
    both: int


@dataclass(slots=True)
class Nodes:
    """The different pictures, or texts, of the examples.

    Args:
        of: nodes of each example.
        near: nodes that are the same as each node, itself among them.
        examples: examples of each node.
        counts: how many examples of each split and label the nodes in `near` have.
    """

    of: list[tuple[int, ...]]
    near: list[list[int]]
    examples: list[list[int]] = field(init=False)
    counts: list[Counter[Key]] = field(init=False)

    def fill(self, sheet: Sheet) -> None:
        """Count examples by split and label; repeated examples count once."""
        self.examples = [[] for _ in self.near]
        own: list[Counter[Key]] = [Counter() for _ in self.near]
        for row, nodes in enumerate(self.of):
            if not sheet.repeated[row]:
                for node in nodes:
                    self.examples[node].append(row)
                    own[node][sheet.split[row], sheet.labels[row]] += 1
        # Counts and no lists: a question such as "what is this?" has thousands of twins.
        self.counts = [sum((own[other] for other in near), Counter()) for near in self.near]

    def in_split(self, row: int, own: Key, split: int) -> bool:
        """Whether a row has a twin, other than itself, in a split."""
        # The row is counted in its own split, so there it takes more than one; True counts as 1.
        return any(
            sum(count for (of, _), count in self.counts[node].items() if of == split) > (own[0] == split)
            for node in self.of[row]
        )

    def confounded(self, row: int, label: str) -> bool:
        """Whether a row has a twin of another label in any split."""
        # The row itself is in these counts, too, but with this label.
        return any(other not in (None, label) for node in self.of[row] for _, other in self.counts[node])


@dataclass(frozen=True, slots=True, kw_only=True)
class Twins:
    """Twins of all examples of a sheet.

    Args:
        words: nodes of the texts.
        pictures: nodes of the pictures, the same under whatever words.
        copied: the same nodes, near only if the words look alike, too.
        grids: of the pictures, by node.
    """

    sheet: Sheet
    grids: Grids
    words: Nodes
    pictures: Nodes
    copied: list[list[int]]

    def copies(self, row: int) -> Iterator[int]:
        """Rows with the same text and the same picture as `row`, without itself and repetitions."""
        texts = {other for node in self.words.of[row] for other in self.words.near[node]}
        nodes = {other for node in self.pictures.of[row] for other in self.copied[node]}
        seen = {row}
        # Without pictures, the same text is the same example.
        if not self.pictures.of[row]:
            yield from (other for node in texts for other in self.words.examples[node] if other != row)
            return
        for node in sorted(nodes):
            for other in self.pictures.examples[node]:
                if other not in seen and texts.intersection(self.words.of[other]):
                    seen.add(other)
                    yield other

    def overlaps(self) -> list[Overlap]:
        """Every pair of splits that share something, and every split that has copies of its own."""
        found = []
        # With replacement: a split is also compared with itself.
        for first, second in combinations_with_replacement(range(len(self.sheet.splits)), 2):
            overlap = self._overlap(first, second)
            shares = (overlap.copies,) if first == second else (overlap.ids, overlap.pictures, overlap.texts)
            if any(shares):
                found.append(overlap)
        return found

    def _overlap(self, first: int, second: int) -> Overlap:
        sheet, names = self.sheet, self.sheet.splits
        rows = sheet.rows(names[second])
        shared = set(sheet.datasets[names[first]].ids) if first != second else set()
        own = [row for row in rows if sheet.ids[row] not in shared]
        copies, contradicting = [], 0
        for row in own:
            others = [other for other in self.copies(row) if sheet.split[other] == first]
            # Within a split, each of two copies would count.
            others = [other for other in others if first != second or other < row]
            if others:
                copies.append(f"{sheet.ids[row]} = {sheet.ids[others[0]]}")
                labels = {sheet.labels[other] for other in others} - {None}
                contradicting += sheet.labels[row] is not None and bool(labels - {sheet.labels[row]})
        keys = {row: (sheet.split[row], sheet.labels[row]) for row in own}
        return Overlap(
            first=names[first],
            second=names[second],
            count=len(rows),
            ids=len(rows) - len(own),
            copies=len(copies),
            contradicting=contradicting,
            pictures=sum(self.pictures.in_split(row, keys[row], first) for row in own),
            texts=sum(self.words.in_split(row, keys[row], first) for row in own),
            examples=tuple(copies[:SHOWN]),
            known=frozenset((names[first], names[second])) in sheet.data.kind.overlaps,
        )

    def confounded(self) -> list[Confounded]:
        """How many examples of each labeled split have confounders."""
        found = []
        for split in self.sheet.labeled:
            sides = [
                (self.pictures.confounded(row, label), self.words.confounded(row, label))
                for row in self.sheet.rows(split)
                if (label := self.sheet.labels[row]) is not None
            ]
            by_picture, by_text = (sum(side) for side in zip(*sides, strict=True))
            both = sum(map(all, sides))
            found.append(
                Confounded(split=split, count=len(sides), by_picture=by_picture, by_text=by_text, both=both)
            )
        return found

    def confounders(self, split: str) -> list[tuple[int, int, str]]:
        """Pairs of examples of a split with different labels, and the side that both share."""
        sheet, found = self.sheet, []
        of = sheet.splits.index(split)
        for side, nodes in (("picture", self.pictures), ("text", self.words)):
            pairs = {
                # Each pair is found from both sides, and counts once.
                (min(row, other), max(row, other))
                for row in sheet.rows(split)
                if sheet.labels[row] is not None
                for node in nodes.of[row]
                for near in nodes.near[node]
                for other in nodes.examples[near]
                if sheet.split[other] == of and sheet.labels[other] not in (None, sheet.labels[row])
            }
            found += [(*pair, side) for pair in sorted(pairs)]
        return found


def find_twins(sheet: Sheet, progress: Progress | None = None) -> Twins:
    """Compare all pictures and all texts of a sheet.

    Raises:
        FormatError: a picture is missing or cannot be read.
    """
    # A file that several examples show is one node, numbered by its first appearance.
    files: dict[Path, int] = {}
    of = [tuple(files.setdefault(path, len(files)) for path in paths) for paths in sheet.pictures]
    grids = read_grids([*files], progress)
    seen = alike(grids)
    near, copied = _adjacent(len(files), seen)
    pictures = Nodes(of=of, near=near)
    pictures.fill(sheet)
    words: dict[str, int] = {}
    # A text without words has no twin.
    nodes: list[tuple[int, ...]] = [
        (words.setdefault(text, len(words)),) if (text := plain(one)) else () for one in sheet.texts
    ]
    texts = Nodes(of=nodes, near=_neighbors(len(words), alike_texts([*words]).tolist()))
    texts.fill(sheet)
    return Twins(sheet=sheet, grids=grids, words=texts, pictures=pictures, copied=copied)


def _adjacent(count: int, seen: Alike) -> tuple[list[list[int]], list[list[int]]]:
    pairs = seen.pairs.tolist()
    copies = [pair for pair, copy in zip(pairs, seen.copies.tolist(), strict=True) if copy]
    return _neighbors(count, pairs), _neighbors(count, copies)


def _neighbors(count: int, pairs: Sequence[Sequence[int]]) -> list[list[int]]:
    near: dict[int, list[int]] = defaultdict(list)
    for first, second in pairs:
        near[first].append(second)
        near[second].append(first)
    # Each node is near itself: equal texts are one node.
    return [[node, *near[node]] for node in range(count)]
