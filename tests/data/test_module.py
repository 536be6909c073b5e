import pickle
from collections.abc import Sequence

import pytest
import torch

from diptych.data.module import DataModule
from diptych.errors import ConfigError
from diptych.types import Batch, Example, Inputs, Pair


class Numbers:
    """Examples 0 to `count`, the label being whether the number is below `positive`."""

    def __init__(self, count: int, positive: int = 0, labels: bool = True) -> None:
        self.count, self.positive, self.labels = count, positive, labels

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        target = int(index < self.positive) if self.labels else None
        return Example(id=str(index), pairs=(Pair(image=None, text=str(index)),), target=target)

    def write(self, predictions: object, path: object) -> None:
        raise AssertionError("these tests write no submission")


class Vectors:
    """The number itself as a sentence vector; longer numbers cost more."""

    def length(self, example: Example) -> int:
        return len(example.id)

    def __call__(self, examples: Sequence[Example]) -> Batch:
        vectors = torch.tensor([[float(example.id)] for example in examples])
        return Batch(ids=tuple(example.id for example in examples), inputs=Inputs(vectors=vectors))


def module(count: int = 50, **settings) -> DataModule:
    return DataModule(**({"train": Numbers(count), "collate": Vectors(), "batch_size": 4} | settings))


def ids(loader) -> list[tuple[str, ...]]:
    return [batch.ids for batch in loader]


def test_training_stream_goes_on_over_epochs_and_from_anywhere():
    data = module()
    plan = data.plan(seed=1)
    whole = ids(data.train_loader(plan, start=0, stop=30))
    assert len(whole) == 30
    assert sorted(int(key) for batch in whole[:13] for key in batch) == list(range(50))
    assert ids(data.train_loader(data.plan(seed=1), start=17, stop=30)) == whole[17:]


def test_workers_give_the_same_batches():
    alone, together = module(), module(workers=2)
    expected = list(alone.train_loader(alone.plan(seed=1), start=5, stop=20))
    found = list(together.train_loader(together.plan(seed=1), start=5, stop=20))
    for left, right in zip(expected, found, strict=True):
        assert left.ids == right.ids
        assert torch.equal(left.inputs.vectors, right.inputs.vectors)


def test_what_spawned_workers_need_can_be_pickled():
    data = module(8)
    again = pickle.loads(pickle.dumps(data))
    plan = data.plan(seed=0)
    assert ids(again.train_loader(plan, start=0, stop=2)) == ids(data.train_loader(plan, start=0, stop=2))


def test_opening_a_loader_leaves_the_randomness_of_the_run_alone():
    data = module()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    next(iter(data.train_loader(data.plan(seed=0), start=0, stop=2)))
    assert torch.equal(before, torch.get_rng_state())


def test_validation_takes_every_example_once_on_any_number_of_ranks():
    data = module(validate=Numbers(23), eval_batch_size=5)
    assert sorted(int(key) for batch in ids(data.validate_loader()) for key in batch) == list(range(23))
    shares = [ids(data.validate_loader(rank=rank, ranks=2)) for rank in (0, 1)]
    assert sorted(int(key) for share in shares for batch in share for key in batch) == list(range(23))
    assert data.targets == {str(index): 0 for index in range(23)}


def test_balance_needs_every_label():
    data = module(train=Numbers(20, positive=5), balance="fixed")
    assert data.plan(seed=0).examples == 10
    with pytest.raises(ConfigError, match=r"example 0 .*data\.balance"):
        module(train=Numbers(20, labels=False), balance="fixed").plan(seed=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": Numbers(0)}, "training"),
        ({"validate": Numbers(0)}, "validation"),
        ({"batch_size": 0}, r"data\.batch_size is 0"),
        ({"eval_batch_size": -1}, r"data\.eval_batch_size -1"),
        ({"workers": -2}, r"data\.workers is -2"),
    ],
)
def test_what_cannot_work_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        module(**settings)


def test_asking_for_a_missing_validation_set_is_an_error():
    with pytest.raises(ConfigError, match=r"data\.validate"):
        module().validate_loader()
