import torch

from diptych.nn.boxes import corners_area, corners_size, corners_size_area, iou

BOX = torch.tensor([[0.1, 0.2, 0.4, 0.8]])


def test_encodings_append_size_and_area():
    corners = [0.1, 0.2, 0.4, 0.8]
    torch.testing.assert_close(corners_area(BOX), torch.tensor([[*corners, 0.18]]))
    torch.testing.assert_close(corners_size(BOX), torch.tensor([[*corners, 0.3, 0.6]]))
    torch.testing.assert_close(corners_size_area(BOX), torch.tensor([[*corners, 0.3, 0.6, 0.18]]))


def test_padding_stays_zero():
    assert not corners_size_area(torch.zeros(2, 3, 4)).any()


def test_iou_of_every_pair():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    others = torch.tensor(
        [[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0], [2.0, 0.0, 4.0, 2.0], [5.0, 5.0, 5.0, 5.0]]
    )
    expected = torch.tensor([[1.0, 1 / 7, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(iou(boxes, others), expected)
    torch.testing.assert_close(iou(boxes.expand(3, 2, 4), others.expand(3, 4, 4))[1], expected)
