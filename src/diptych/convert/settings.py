"""Settings that a converted bundle gets by what its file was trained for, and where each comes from."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diptych.convert.family import RecognizedCheckpoint


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What others trained a head of two classes for.

    Args:
        labels: names of the classes, in the order of the head's outputs in their files.
    """

    name: str
    labels: tuple[str, str]


# facts about published checkpoints, whatever data sets there are here
MEMES = Benchmark("Hateful Memes", ("benign", "hateful"))
NLVR2 = Benchmark("NLVR2", ("False", "True"))


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a converted bundle, and where it comes from, for people.

    Args:
        value: of `max_tokens`, None is as many as the table of positions allows.
        why: `the file: ...` for what the file shows, `the original: ...` for what its program is known to do.
    """

    value: Any
    why: str


Settings = dict[str, Setting]


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a file was trained for, as far as it shows.

    Args:
        found: with settled sizes.
        head: name of the head that becomes the task; empty where there is none.
        task: the node of the task.
        count: of its classes or answers.
    """

    found: "RecognizedCheckpoint"
    head: str
    task: dict[str, Any]
    count: int

    @property
    def prefix(self) -> str:
        return self.found.split.prefix

    @property
    def pairs(self) -> int:
        pairs: int = self.task.get("pairs", 1)
        return pairs

    @property
    def kind(self) -> str:
        """The class of the task, as `Answer`."""
        return str(self.task["_target_"]).rpartition(".")[2]


VILIO_SETTINGS: Settings = {
    "max_tokens": Setting(128, "the original: Vilio's hm.py pads and cuts every text to 128"),
    "max_regions": Setting(100, "the original: Vilio reads all regions; its files hold at most 100"),
}
