from pathlib import Path

from diptych.datasets.examples import ExampleTable, write_examples
from diptych.types import Example, Mention, Pair

EXAMPLES = [
    Example(id="1", pairs=(Pair(image=None, text=""),)),
    Example(
        id="2",
        pairs=(
            Pair(image="a", text="x", text_b="y", files=("img/a.png",)),
            Pair(image=("a", "b"), text="é\n", more_texts=("ein Hund", "")),
        ),
        target={"cat": 0.5, "dog": 1},
        weight=0.25,
        group="de",
        meta={"deep": [1, {"a": None}]},
    ),
    Example(
        id="3",
        pairs=(Pair(image="c", text="he", mentions=(Mention(start=0, stop=2, region=3, segment=1),)),),
        target=7,
    ),
]


def test_a_table_on_disk_and_one_in_memory_give_back_every_field(tmp_path: Path) -> None:
    write_examples(tmp_path / "examples.arrow", EXAMPLES)
    for table in (ExampleTable.of(EXAMPLES), ExampleTable.open(tmp_path / "examples.arrow")):
        assert [table[index] for index in range(len(table))] == EXAMPLES
        assert list(table) == EXAMPLES
