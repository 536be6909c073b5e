"""The length that batches are sorted by is that of the row that a model gets."""

from pathlib import Path

import pytest

from diptych.conf import names
from diptych.recipe import compose, settle

TINY = [name for name in names("experiment") if name.startswith("hateful_memes/") and name.endswith("_tiny")]
SETTINGS = {
    "as they are": (),
    "cut": ("processor.max_tokens=9", "processor.max_regions=3"),
    "without regions": ("processor.missing=none",),
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", TINY)
def test_length_is_that_of_the_row(name: str, settings: str, memes: Path, tmp_path: Path) -> None:
    words = [f"experiment={name}", f"root={memes}", f"out={tmp_path}", *SETTINGS[settings]]
    if name.endswith("end_to_end_tiny"):
        words += ["processor.grid=[2,2]", "processor.prepare.least=32", "processor.whole_image=true"]
    settled = settle(compose(words), tmp_path)
    processor, sources, lengths = settled.processor, settled.sources, set()
    if settings == "without regions" and sources.regions is not None:
        sources = sources._replace(regions=Half(sources.regions))
    for example in (settled.train[index] for index in range(0, len(settled.train), 4)):
        rows = [processor(pair, sources) for pair in example.pairs]
        real = max(len(row.tokens or ()) + (0 if row.boxes is None else len(row.boxes)) for row in rows)
        assert processor.length(example, sources.regions) == real
        lengths.add(real)
    assert len(lengths) > 1 or not {"text", "regions"} & processor.provides or settings == "cut"


class Half:
    """A source without every other image."""

    def __init__(self, source) -> None:
        self.source, self.meta = source, source.meta

    def __getitem__(self, key):
        return self.source[key]

    def __contains__(self, key) -> bool:
        return key in self.source and int(key) % 2 == 0

    def count(self, key) -> int:
        return self.source.count(key)
