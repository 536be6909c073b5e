import pytest
import torch
from torch.nn import functional as F

from diptych.errors import ConfigError, FormatError
from diptych.models import text_fasttext_tiny
from diptych.nn.boxes import iou
from diptych.tasks import GoldBox, Ground
from diptych.types import Example, Pair


def example(target):
    return Example(id="r1", pairs=(Pair(image="a", text="x"),), target=target)


def pixels(given, row, region):
    return given.inputs.regions.boxes[row, region] * torch.tensor([100.0, 50, 100, 50])


def test_targets_are_boxes():
    boxes = GoldBox()([example([1, 2, 3, 4.5]), example((0, 0, 9, 9))])
    assert boxes.tolist() == [[1, 2, 3, 4.5], [0, 0, 9, 9]]
    assert GoldBox()([example([1, 2, 3, 4]), example(None)]) is None


@pytest.mark.parametrize("target", ["box", [1, 2, 3], [1, 2, "x", 4], 7])
def test_a_wrong_box_names_the_example(target):
    with pytest.raises(FormatError, match=r"^example r1 .* x1 y1 x2 y2 "):
        GoldBox()([example(target)])


def test_losses_are_what_they_say(model, batch):
    plain = batch()
    boxes = torch.stack([pixels(plain, 0, 2), pixels(plain, 1, 0), pixels(plain, 2, 0), torch.zeros(4)])
    given = batch(boxes)
    task = Ground(model, loss="ce")
    scores = task.score(model(given.inputs), given)
    assert (scores == -1e4).equal(~given.inputs.regions.mask)
    # the last example has no right region
    expected = F.cross_entropy(scores[:3], torch.tensor([2, 0, 0]))
    torch.testing.assert_close(task.loss(scores, given), expected)
    mask = given.inputs.regions.mask
    normal = boxes / torch.tensor([100.0, 50, 100, 50])
    right = iou(given.inputs.regions.boxes, normal[:, None]).squeeze(-1) >= 0.5
    each = F.binary_cross_entropy_with_logits(scores[mask], right[mask].float())
    torch.testing.assert_close(Ground(model).loss(scores, given), each)


def test_a_batch_without_a_right_region_has_a_loss_of_zero(model, batch):
    given, task = batch(torch.zeros(4, 4)), Ground(model, loss="ce")
    assert task.loss(task.score(model(given.inputs), given), given) == 0


def test_the_box_of_the_best_real_region_is_given_in_pixels(model, batch):
    given, task = batch(), Ground(model)
    with torch.no_grad():
        task.head.layers[0].bias.fill_(-1e3)  # still better than padding
    predictions = task.decode(task.score(model(given.inputs), given), given)
    assert predictions.answers[2] == "0"
    boxes = [pixels(given, row, int(region)) for row, region in enumerate(predictions.answers)]
    assert predictions.scores is predictions.classes is None
    assert predictions.boxes == pytest.approx(torch.stack(boxes).double().numpy())
    gold = {key: box.tolist() for key, box in zip(predictions.ids, boxes, strict=True)}
    assert task.measure(predictions, gold | {"m3": None}) == {"accuracy": 1.0, "mean_iou": pytest.approx(1.0)}
    assert task.measure(predictions, gold | {"m0": [0, 0, 1, 1]})["accuracy"] == 0.75


def test_wrong_settings_are_named(model):
    with pytest.raises(ConfigError, match=r"task\.loss .*'mse'"):
        Ground(model, loss="mse")
    with pytest.raises(ConfigError, match="Concat"):
        Ground(text_fasttext_tiny())
