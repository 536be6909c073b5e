import pytest
import torch

from diptych.errors import ConfigError
from diptych.models import oscar_tiny
from diptych.tasks.objectives import Sample, TagContrast
from diptych.tasks.objectives.tag_contrast import combine
from diptych.types import Inputs, PaddedRegions, PaddedText

CLS, SEP = 2, 3


def texts(*rows, width=None):
    """Rows of (caption, names) as `[CLS] caption [SEP] names [SEP]`."""
    ids = [[CLS, *caption, SEP, *names, SEP] for caption, names in rows]
    width = width or max(map(len, ids))
    mask = torch.tensor([[place < len(row) for place in range(width)] for row in ids])
    segments = torch.tensor(
        [
            [int(len(caption) + 2 <= place < len(row)) for place in range(width)]
            for row, (caption, _) in zip(ids, rows, strict=True)
        ]
    )
    return PaddedText(
        ids=torch.tensor([row + [0] * (width - len(row)) for row in ids]), mask=mask, segments=segments
    )


def rows_of(text):
    return [
        (ids[mask].tolist(), kinds[mask].tolist())
        for ids, mask, kinds in zip(text.ids, text.mask, text.segments, strict=True)
    ]


def flags(*values):
    return torch.tensor([bool(value) for value in values])


def test_either_part_can_be_another_rows():
    given = texts(([10, 11], [20]), ([12], [21, 22]), ([13], [23]), width=8)
    other = torch.tensor([1, 0, 0])
    after = combine(given, other, flags(0, 1, 0), flags(1, 0, 0))
    assert rows_of(after) == [
        ([CLS, 10, 11, SEP, 21, 22, SEP], [0, 0, 0, 0, 1, 1, 1]),
        ([CLS, 10, 11, SEP, 21, 22, SEP], [0, 0, 0, 0, 1, 1, 1]),
        ([CLS, 13, SEP, 23, SEP], [0, 0, 0, 1, 1]),
    ]
    untouched = combine(given, other, flags(0, 0, 0), flags(0, 0, 0))
    assert rows_of(untouched) == rows_of(given)


def test_what_grows_too_long_loses_the_end_of_its_longer_part():
    given = texts(([10, 11, 12, 13], [20]), ([14], [21, 22, 23, 24]))
    after = combine(given, torch.tensor([1, 0]), flags(0, 0), flags(1, 0))
    assert rows_of(after)[0][0] == [CLS, 10, 11, SEP, 21, 22, 23, SEP][: 1 + 2 + 1 + 4]
    assert rows_of(after)[1] == rows_of(given)[1]


def test_oscar_plus_breaks_a_quarter_on_either_side():
    torch.manual_seed(0)
    given = texts(*(([10 + row], [60 + row]) for row in range(40)))
    regions = PaddedRegions(
        features=torch.randn(40, 1, 64),
        boxes=torch.rand(40, 1, 4),
        mask=torch.ones(40, 1, dtype=torch.bool),
        image_index=torch.zeros(40, 1, dtype=torch.int64),
        sizes=torch.ones(40, 2),
    )
    objective = TagContrast(oscar_tiny(), classes=3, rate=0.25, caption_rate=0.25)
    counts = torch.zeros(3)
    for seed in range(20):
        sample = Sample(inputs=Inputs(text=given, regions=regions))
        after = objective.corrupt(sample, torch.Generator().manual_seed(seed))
        ids, mismatch = after.inputs.text.ids, after.mismatch
        assert torch.equal(ids[:, 3] != given.ids[:, 3], mismatch == 1)
        assert torch.equal(ids[:, 1] != given.ids[:, 1], mismatch == 2)
        counts += mismatch.bincount(minlength=3)
    torch.testing.assert_close(counts / counts.sum(), torch.tensor([0.5, 0.25, 0.25]), atol=0.06, rtol=0)


def test_captions_need_a_class_of_their_own():
    with pytest.raises(ConfigError, match=r"caption_rate .* 0\.25 .* 2 .* 3\b"):
        TagContrast(oscar_tiny(), caption_rate=0.25)
