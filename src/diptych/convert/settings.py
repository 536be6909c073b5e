"""Settings of a converted bundle that depend on what its file was trained for, and their origins."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diptych.convert.family import RecognizedCheckpoint


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark for which heads of two classes were published.

    Args:
        name: name of the benchmark, for users.
        labels: names of the classes, in the order of the head's outputs in the published files.
    """

    name: str
    labels: tuple[str, str]


# Facts about published checkpoints. They do not depend on the data sets that diptych has.
MEMES = Benchmark("Hateful Memes", ("benign", "hateful"))
NLVR2 = Benchmark("NLVR2", ("False", "True"))


@dataclass(frozen=True, slots=True)
# Example: Setting(20, "the original: LXMERT pads and truncates every text to 20 tokens").
class Setting:
    """A setting of a converted bundle, and its origin.

    Args:
        value: the value. For `max_tokens`, None is the largest number that the table of positions allows.
        why: origin, for users: `the file: ...` if the file shows the value, `the original: ...` if the
            program of its authors uses it, `assumed: ...` or `default: ...` else.
    """

    value: Any
    why: str


Settings = dict[str, Setting]


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a file was trained for.

    Args:
        found: the recognized file, with the final sizes.
        head: name of the head that becomes the task; empty if there is none.
        task: config of the task.
        count: number of its classes or answers.
    """

    found: "RecognizedCheckpoint"
    head: str
    task: dict[str, Any]
    count: int

    @property
    def prefix(self) -> str:
        """What the file puts before the names of the backbone. It often shows who wrote the file."""
        return self.found.split.prefix

    @property
    def pairs(self) -> int:
        """Image-text pairs per example of the task."""
        pairs: int = self.task.get("pairs", 1)
        return pairs

    @property
    def kind(self) -> str:
        """The class name of the task, such as `Answer`."""
        return str(self.task["_target_"]).rpartition(".")[2]


VILIO_SETTINGS: Settings = {
    "max_tokens": Setting(128, "the original: Vilio's hm.py pads and truncates every text to 128 tokens"),
    "max_regions": Setting(100, "the original: Vilio reads all regions; its files have at most 100"),
}
