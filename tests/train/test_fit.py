import csv
import math
from dataclasses import replace

import pytest
import torch
import training_toy as toy
from torch.utils.checkpoint import checkpoint

from diptych.errors import ConfigError
from diptych.nn import transformer
from diptych.train import EMA, AnnealSWA, JumpSWA, Trainer, adamw, constant, fit, hf_adamw, linear, plateau
from diptych.train.averaging import Averaging


def run(folder, *, data=None, averaging: Averaging | None = None, seed: int = 0, lr: float = 3e-3, **trainer):
    model, task = toy.parts()
    result = fit(
        model,
        task,
        data or toy.data(),
        folder=folder,
        optim=adamw(lr=lr),
        schedule=linear(),
        averaging=averaging,
        trainer=Trainer(**({"accelerator": "cpu", "max_epochs": 2} | trainer)),
        seed=seed,
        loggers=[],
        progress=False,
    )
    return result, {**model.state_dict(), **task.state_dict()}


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def columns(folder) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k != "train/examples_per_second"} for row in csv.DictReader(file)
        ]


def test_learns_the_rule_and_hands_back_the_best_weights(tmp_path):
    data = toy.data(400, 100)
    result, weights = run(tmp_path, data=data, max_epochs=8)
    assert result.kept == "best"
    assert result.monitor == "accuracy"
    assert result.best == result.metrics["accuracy"] == max(row["accuracy"] for row in result.history) > 0.9
    assert (result.steps, result.total_steps, len(result.history)) == (400, 400, 8)
    best = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    assert best["metrics"]["step"] == result.best_step
    kept = {name.partition(".")[2]: tensor for name, tensor in best["weights"].items()}
    assert equal(weights, kept)


def test_model_comes_back_on_the_cpu_in_evaluation_mode(tmp_path):
    model, task = toy.parts()
    fit(model, task, toy.data(16, 8), folder=tmp_path, optim=hf_adamw(lr=1e-3), loggers=[], progress=False)
    assert not model.training
    assert not task.training
    assert model.norm.weight.device.type == "cpu"


def test_same_seed_same_run_with_and_without_workers(tmp_path):
    _, first = run(tmp_path / "a", seed=1)
    torch.manual_seed(99)  # what happened before does not matter
    _, second = run(tmp_path / "b", seed=1, data=toy.data(workers=2))
    assert equal(first, second)
    assert columns(tmp_path / "a") == columns(tmp_path / "b")
    _, other = run(tmp_path / "c", seed=2)
    assert not equal(first, other)


def test_activation_checkpointing_does_not_change_training(tmp_path, monkeypatch):
    _, plain = run(tmp_path / "a")
    calls: list[object] = []
    monkeypatch.setattr(
        transformer, "checkpoint", lambda *call, **how: calls.append(call) or checkpoint(*call, **how)
    )
    result, weights = run(tmp_path / "b", activation_checkpointing=True)
    assert equal(plain, weights)
    assert len(calls) >= 2 * result.steps  # the toy has two layers


def test_validating_more_often_does_not_change_training(tmp_path):
    _, rarely = run(tmp_path / "a", keep="last")
    result, often = run(tmp_path / "b", keep="last", val_check_interval=5)
    assert [row["step"] for row in result.history] == [5, 10, 15, 20, 24]
    assert equal(rarely, often)


@pytest.mark.parametrize(
    ("interval", "steps"), [(1.0, [12, 24]), (0.5, [6, 12, 18, 24]), (2.0, [24]), (10, [10, 20, 24])]
)
def test_validation_comes_in_steps_or_parts_of_an_epoch(tmp_path, interval, steps):
    result, _ = run(tmp_path, val_check_interval=interval)
    assert [row["step"] for row in result.history] == steps
    assert result.history[0]["epoch"] == steps[0] / 12


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"max_epochs": None, "max_steps": 7}, 7),
        ({"max_epochs": 1, "max_steps": 99}, 12),
        ({"max_epochs": None}, 12),
        ({"max_epochs": 3, "limit_train_batches": 2}, 6),
        ({"max_epochs": 1, "accumulate_grad_batches": 5}, 3),
    ],
)
def test_length_of_a_run(tmp_path, settings, steps):
    result, _ = run(tmp_path, **settings)
    assert result.steps == result.total_steps == steps


def test_accumulation_equals_a_larger_batch(tmp_path):
    def trained(folder, batch_size: int, parts: int):
        model, task = toy.parts(dropout=0.0)
        fit(
            model,
            task,
            toy.data(93, 0, batch_size=batch_size),
            folder=folder,
            optim=adamw(lr=3e-3),
            trainer=Trainer(max_epochs=3, accumulate_grad_batches=parts, accelerator="cpu"),
            loggers=[],
            progress=False,
        )
        return model

    whole, parts = trained(tmp_path / "a", 12, 1), trained(tmp_path / "b", 3, 4)
    for left, right in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=2e-6)


def test_sum_multiplies_the_mean_loss_by_the_rows(tmp_path):
    """One step of plain descent on 6 examples in 2 batches moves by 3 times the mean's gradient."""

    def moved(reduction: str) -> torch.Tensor:
        torch.manual_seed(0)
        model, task = toy.parts(dropout=0.0)
        before = task.head.weight.detach().clone()
        trainer = Trainer(
            max_steps=1,
            accumulate_grad_batches=2,
            reduction=reduction,
            gradient_clip_val=None,
            accelerator="cpu",
        )
        optim = adamw(lr=1.0)
        descent = type(optim)(build=lambda groups: torch.optim.SGD(groups), lr=0.1, weight_decay=0.0)
        fit(
            model, task, toy.data(6, 0, batch_size=3), folder=tmp_path / reduction, optim=descent,
            schedule=constant(), trainer=trainer, loggers=[], progress=False,
        )  # fmt: skip
        return task.head.weight.detach() - before

    torch.testing.assert_close(moved("sum"), 3 * moved("mean"))


@pytest.mark.parametrize(
    ("averaging", "at_31", "at_35"), [(JumpSWA(), 1.0, 1.0), (AnnealSWA(), 0.27778, 0.40458)]
)
def test_rates_of_a_run_are_the_published_ones(tmp_path, averaging, at_31, at_35):
    run(tmp_path, averaging=averaging, lr=1e-5, max_epochs=9, max_steps=40, log_every_n_steps=1)
    rates = [float(row["train/lr"]) / 1e-5 for row in columns(tmp_path) if row["train/lr"]]
    assert len(rates) == 40
    assert rates[:6] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0.97222], abs=5e-6)
    assert (rates[29], rates[30], rates[34]) == pytest.approx((0.30556, at_31, at_35), abs=5e-6)
    count = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["average"]["count"]
    assert count == (2 if averaging == JumpSWA() else 9)


def test_average_is_kept_with_swa_and_measured(tmp_path):
    result, weights = run(tmp_path, averaging=JumpSWA(every=2))
    assert result.kept == "average"
    assert set(result.metrics) == {"accuracy", "loss"}
    mean = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["average"]["mean"]
    assert torch.equal(mean["task.head.weight"], weights["head.weight"])
    assert "average/accuracy" in columns(tmp_path)[-1]


def test_ema_is_what_gets_validated_and_kept(tmp_path):
    result, weights = run(tmp_path, averaging=EMA(decay=0.99))
    plain, _ = run(tmp_path / "plain")
    assert result.kept == "best"
    assert result.history[0]["loss"] != plain.history[0]["loss"]
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert result.best_step == 24 or result.best_step == 12
    assert not torch.equal(last["weights"]["task.head.weight"], weights["head.weight"])


def test_without_validation_the_last_weights_are_kept(tmp_path):
    result, _ = run(tmp_path, data=toy.data(validate=0))
    assert (result.kept, result.metrics, result.history, result.best) == ("last", {}, (), None)
    assert not (tmp_path / "checkpoints/best.ckpt").exists()


def test_patience_ends_a_run_and_it_stays_ended(tmp_path):
    for _ in range(2):
        result, _ = run(tmp_path, lr=1e-7, max_epochs=50, patience=2, monitor="accuracy")
        assert result.stopped_early
        assert not result.interrupted
        assert result.steps == 3 * 12  # the first validation, and two that were no better


@pytest.mark.parametrize(
    ("minimized", "monitor", "best"),
    [({"loss"}, "loss", min), ({"loss"}, "accuracy", max), ({"loss", "accuracy"}, "accuracy", min)],
)
def test_the_task_says_of_which_metric_less_is_better(tmp_path, monkeypatch, minimized, monitor, best):
    monkeypatch.setattr(toy.Compare, "higher", lambda self, name: name not in minimized)
    result, _ = run(tmp_path, monitor=monitor, max_epochs=4)
    assert len({row[monitor] for row in result.history}) > 1
    assert result.best == best(row[monitor] for row in result.history)


def test_an_unknown_metric_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer\.monitor.*'auroc'.*accuracy, loss"):
        run(tmp_path, monitor="auroc")


def test_mixed_precision_is_near_full_precision(tmp_path):
    full, _ = run(tmp_path / "full")
    mixed, weights = run(tmp_path / "mixed", precision="bf16-mixed")
    assert mixed.history[0]["loss"] == pytest.approx(full.history[0]["loss"], abs=0.01)
    assert mixed.history != full.history
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


@pytest.mark.parametrize(
    "settings", [{"precision": "16-mixed"}, {"accelerator": "gpus"}, {"devices": 10_000}]
)
def test_what_the_machine_cannot_do_is_an_error(tmp_path, settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ConfigError, match=rf"\b{name}={value}\b"):
        run(tmp_path, **settings)


def test_one_batch_is_learned_by_heart(tmp_path):
    result, _ = run(tmp_path, data=toy.data(validate=0), overfit_batches=1, max_epochs=60, lr=2e-2)
    losses = [float(row["train/loss"]) for row in columns(tmp_path)]
    assert result.steps == 60
    assert losses[-1] < 0.1 < losses[0]


def test_a_loss_that_is_not_finite_is_named_and_the_state_before_it_kept(tmp_path, monkeypatch):
    forward, calls = toy.Compare.loss, iter(range(1, 999))

    def loss(self, logits, batch):
        value = forward(self, logits, batch)
        return value * float("nan") if self.training and next(calls) == 17 else value

    monkeypatch.setattr(toy.Compare, "loss", loss)
    with pytest.raises(ConfigError, match=r"\bnan\b.* 17 .*24 .*optim\.lr"):
        run(tmp_path)
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert last["step"] == 12
    assert all(tensor.isfinite().all() for tensor in last["weights"].values())


def test_unlabeled_training_examples_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"\bexample \S+ .*label"):
        run(tmp_path, data=unlabeled())


def unlabeled():
    return toy.DataModule(train=toy.Words(8, labels=False), collate=toy.Digits(), batch_size=4)


def test_a_validation_set_of_one_class_warns_once(tmp_path):
    data = toy.data()
    data.validate.examples = [example for example in data.validate.examples if example.target == 1]
    with pytest.warns(UserWarning, match=r"^accuracy .*trainer\.monitor=loss") as caught:
        result, _ = run(tmp_path, data=data)
    assert len(caught) == 1
    assert math.isnan(result.best)
    assert len(result.history) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16"},
        {"max_epochs": 0},
        {"accumulate_grad_batches": 0},
        {"val_check_interval": 0},
        {"gradient_clip_val": -1.0},
    ],
)
def test_impossible_settings_are_named(settings):
    with pytest.raises(ConfigError, match=rf"trainer\.{next(iter(settings))}"):
        Trainer(**settings)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_quiet_by_default(tmp_path, capfd, precision):
    run(tmp_path, precision=precision)
    assert capfd.readouterr() == ("", "")


def test_without_a_terminal_each_validation_is_one_line(tmp_path, capfd):
    fit(
        *toy.parts(),
        toy.data(),
        folder=tmp_path,
        optim=adamw(lr=1e-3),
        trainer=Trainer(max_epochs=2),
        loggers=[],
    )
    out, err = capfd.readouterr()
    assert out == ""
    start, *lines = err.splitlines()
    assert start.startswith("a step: 8 examples")
    assert len(lines) == 2
    assert lines[0].startswith("step 12/24: train loss 0.")
    assert lines[0].endswith("(best so far)")


def test_tensorboard_gets_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    fit(*toy.parts(), toy.data(16, 8), folder=tmp_path, optim=adamw(lr=1e-3), progress=False)
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_unlabeled_validation_examples_leave_the_loss_a_number(tmp_path):
    data = toy.data()
    data.validate.examples[3] = replace(data.validate.examples[3], target=None)
    result, _ = run(tmp_path, data=data)
    assert all(math.isfinite(row["loss"]) for row in result.history)


def test_a_rate_per_example_is_multiplied_and_both_are_said(tmp_path, capfd):
    settings = {"max_steps": 1, "accelerator": "cpu", "accumulate_grad_batches": 2}
    for name, rate, compat in (("ours", 1.6e-3, False), ("theirs", 1e-4, True)):
        model, task = toy.parts(dropout=0.0)
        trainer = Trainer(**settings, rate_per_example=compat)
        fit(model, task, toy.data(), folder=tmp_path / name, optim=adamw(lr=rate), trainer=trainer)
        torch.save(model.state_dict(), tmp_path / f"{name}.pt")
    one, other = (torch.load(tmp_path / f"{name}.pt") for name in ("ours", "theirs"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    first, second = (line for line in capfd.readouterr().err.splitlines() if line.startswith("a step:"))
    assert "16 examples" in first
    assert "0.0016" in first
    assert "0.0001 per example" in second


def test_the_curves_have_the_norm_of_gradients_and_every_loss(tmp_path, monkeypatch):
    forward = toy.Compare.forward

    def with_parts(self, model, batch, generator=None):
        outcome = forward(self, model, batch, generator)
        return replace(outcome, logs={"half": outcome.loss.detach() / 2})

    monkeypatch.setattr(toy.Compare, "forward", with_parts)
    model, task = toy.parts()
    trainer = Trainer(max_steps=4, accelerator="cpu", log_every_n_steps=2)
    fit(model, task, toy.data(validate=0), folder=tmp_path, optim=adamw(lr=1e-3), trainer=trainer, loggers=[])
    rows = columns(tmp_path)
    assert [float(row["train/half"]) for row in rows] == pytest.approx(
        [float(row["train/loss"]) / 2 for row in rows], rel=1e-6
    )
    assert all(float(row["train/grad_norm"]) > 0 for row in rows)


def test_a_plateau_without_validation_is_refused(tmp_path):
    model, task = toy.parts()
    with pytest.raises(ConfigError, match="plateau"):
        fit(model, task, toy.data(validate=0), folder=tmp_path, optim=adamw(lr=1e-3), schedule=plateau())
