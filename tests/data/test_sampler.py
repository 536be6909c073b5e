import numpy as np
import pytest

from diptych.data.sampler import JointPlan, Plan, Positions, longest_first
from diptych.errors import ConfigError


def lengths(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(5, 60, count)


def test_every_epoch_takes_every_example_once():
    plan = Plan(1003, batch_size=8, lengths=lengths(1003), seed=3)
    for epoch in range(2):
        steps = plan.epoch(epoch)
        assert sorted(np.concatenate(steps).tolist()) == list(range(1003))
        assert [len(step) for step in steps] == [8] * 125 + [3]


def test_order_is_a_function_of_seed_and_epoch():
    def flat(seed: int, epoch: int) -> list[int]:
        return np.concatenate(Plan(100, batch_size=4, lengths=lengths(100), seed=seed).epoch(epoch)).tolist()

    assert flat(1, 5) == flat(1, 5)
    assert len({tuple(flat(*key)) for key in ((1, 5), (1, 6), (2, 5))}) == 3


def test_batches_hold_similar_lengths_in_random_order():
    size = lengths(4000)
    steps = Plan(4000, batch_size=16, lengths=size).epoch(0)
    padding = sum(size[step].max() * len(step) for step in steps) / size.sum()
    plain = sum(size[step].max() * len(step) for step in Plan(4000, batch_size=16).epoch(0)) / size.sum()
    assert padding < 1.03 < 1.5 < plain
    maxima = [size[step].max() for step in steps]
    assert abs(np.corrcoef(maxima, range(len(maxima)))[0, 1]) < 0.2


def test_rest_of_an_epoch_is_not_biased_in_length():
    size = lengths(4010)
    rests = [Plan(4010, batch_size=16, lengths=size, seed=seed).epoch(0)[-1] for seed in range(60)]
    mean = np.mean([size[rest].mean() for rest in rests])
    assert abs(mean - size.mean()) < 4 * size.std() / np.sqrt(600)


@pytest.mark.parametrize(("ranks", "accumulate"), [(1, 4), (4, 1), (2, 2)])
def test_ranks_and_accumulation_share_the_steps_of_one_process(ranks, accumulate):
    size = lengths(203)
    whole = Plan(203, batch_size=16, lengths=size, seed=1)
    plan = Plan(203, batch_size=4, lengths=size, seed=1, ranks=ranks, accumulate=accumulate)
    for step in range(2 * plan.steps_per_epoch):
        expected = whole.portion(step)
        portions = [
            plan.portion(step * accumulate + part, rank)
            for part in range(accumulate)
            for rank in range(ranks)
        ]
        counted = [index for portion in portions for index in portion.indices[: portion.count]]
        assert sorted(counted) == sorted(expected.indices)
        assert {portion.step_count for portion in portions} == {expected.step_count}


def test_no_rank_is_ever_without_work():
    plan = Plan(9, batch_size=2, ranks=2, accumulate=2)
    rest = [plan.portion(position, rank) for position in (2, 3) for rank in (0, 1)]
    assert sorted(portion.count for portion in rest) == [0, 0, 0, 1]
    assert all(len(portion.indices) == 1 for portion in rest)
    assert {portion.step_count for portion in rest} == {1}


def test_stream_can_be_entered_anywhere():
    plan = Plan(37, batch_size=4, lengths=lengths(37))
    whole = list(Positions(plan, start=0, stop=30))
    assert len(whole) == 30
    fresh = Plan(37, batch_size=4, lengths=lengths(37))
    for start in (1, 9, 10, 23, 30):
        assert list(Positions(fresh, start=start, stop=30)) == whole[start:]


@pytest.mark.parametrize(("limit", "accumulate", "steps"), [(5, 1, 5), (5, 2, 3), (0.5, 1, 12), (999, 1, 25)])
def test_limit_shortens_the_epoch(limit, accumulate, steps):
    plan = Plan(100 * accumulate, batch_size=4, accumulate=accumulate, limit=limit)
    assert plan.steps_per_epoch == len(plan.epoch(0)) == steps


def test_repeated_epochs_are_the_first():
    plan = Plan(100, batch_size=4, limit=1, repeat=True)
    assert [plan.portion(position) for position in range(3)] == [plan.portion(0)] * 3


def test_balance_draws_as_many_of_each_class():
    classes = ["benign"] * 70 + ["hateful"] * 30
    fresh = Plan(100, batch_size=4, classes=classes, balance="epoch")
    fixed = Plan(100, batch_size=4, classes=classes, balance="fixed")
    epochs = {
        name: [np.concatenate(plan.epoch(e)) for e in (0, 1)]
        for name, plan in (("fresh", fresh), ("fixed", fixed))
    }
    for drawn in (*epochs["fresh"], *epochs["fixed"]):
        assert len(set(drawn.tolist())) == len(drawn) == 60
        assert (drawn >= 70).sum() == 30
    assert set(epochs["fixed"][0]) == set(epochs["fixed"][1])
    assert set(epochs["fresh"][0]) != set(epochs["fresh"][1])


@pytest.mark.parametrize("ranks", [1, 3])
def test_evaluation_takes_every_example_once_longest_first(ranks):
    size = lengths(53)
    shares = [longest_first(size, batch_size=8, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(53))
    for share in shares:
        first = [size[batch].max() for batch in share]
        assert first == sorted(first, reverse=True)


def joint(ranks: int = 1, accumulate: int = 1) -> JointPlan:
    """Captions decide how long an epoch is; the corpora have more and fewer examples."""
    common = {"ranks": ranks, "accumulate": accumulate}
    sizes = {37: 4, 101: 3, 9: 2}
    plans = [
        Plan(count, batch_size=batch, seed=number, lengths=lengths(count), **common)
        for number, (count, batch) in enumerate(sizes.items())
    ]
    return JointPlan(plans, [*sizes])


def test_a_joint_plan_cycles_the_other_data_sets():
    plan = joint()
    assert (plan.steps_per_epoch, plan.step_size) == (10, 9)
    taken = [np.array(plan.portion(position).indices) for position in range(34)]
    first, second, third = (
        np.concatenate([step[(step >= low) & (step < high)] for step in taken]).tolist()
        for low, high in ((0, 37), (37, 138), (138, 147))
    )
    assert sorted(first[:37]) == sorted(first[37:74]) == list(range(37))
    assert sorted(second[:101]) == list(range(37, 138))  # goes on where the epoch of the first one ends
    assert all(sorted(third[start : start + 9]) == list(range(138, 147)) for start in (0, 9, 18, 27, 36, 45))
    assert third[:9] != third[9:18]


@pytest.mark.parametrize(("ranks", "accumulate"), [(2, 1), (2, 2)])
def test_ranks_share_a_joint_plan_and_count_what_they_take(ranks, accumulate):
    plan, fresh = joint(ranks, accumulate), joint(ranks, accumulate)
    for step in (7, 0, 12):
        places = [(step * accumulate + part, rank) for part in range(accumulate) for rank in range(ranks)]
        portions = [plan.portion(*place) for place in places]
        assert portions == [fresh.portion(*place) for place in places]  # no state
        assert sum(one.count for one in portions) == portions[0].step_count
        taken = [index for one in portions for index in one.indices[: one.count]]
        assert len(set(taken)) == len(taken)


def test_a_step_has_one_kind_of_examples():
    kinds = np.random.default_rng(1).integers(0, 2, 203)
    plan = Plan(203, batch_size=8, lengths=lengths(203), seed=2, kinds=kinds)
    for epoch in range(2):
        steps = plan.epoch(epoch)
        assert len(steps) == plan.steps_per_epoch == sum(-(-int((kinds == k).sum()) // 8) for k in (0, 1))
        assert sorted(np.concatenate(steps).tolist()) == list(range(203))
        assert all(len(set(kinds[step])) == 1 for step in steps)
        assert [len(step) for step in steps[:-2]] == [8] * (len(steps) - 2)
    assert plan.portion(3) == Plan(203, batch_size=8, lengths=lengths(203), seed=2, kinds=kinds).portion(3)


def test_kinds_and_draws_exclude_each_other():
    with pytest.raises(ConfigError, match=r"data\.aspects"):
        Plan(4, batch_size=2, kinds=np.zeros(4, int), draws=[(4, 2)])
