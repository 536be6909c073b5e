import pytest
import torch
from PIL import Image

from diptych.images import MEAN, STD
from diptych.nn.views import OPERATIONS, SIGNED, strong_views, weak_views


def pictures(count=3, size=24):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, size, size, generator=generator)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def test_the_same_generator_gives_the_same_views():
    for views in (
        lambda seed: weak_views(pictures(), flip=0.5, generator=generator(seed)),
        lambda seed: strong_views(pictures(), generator=generator(seed)),
    ):
        assert torch.equal(views(1), views(1))
        assert not torch.equal(views(1), views(2))


def test_a_weak_view_is_a_part_of_the_picture():
    """The inner part is found again, moved by up to 4 pixels, and mirrored only if asked for."""
    given = pictures(8)
    plain = weak_views(given, flip=0, generator=generator())
    mirrored = weak_views(given, flip=1, generator=generator()).flip(-1)
    assert torch.equal(plain, mirrored)
    for one, view in zip(given, plain, strict=True):
        core = view[:, 4:-4, 4:-4]
        places = [(top, left) for top in range(9) for left in range(9)]
        assert any(torch.equal(one[:, top : top + 16, left : left + 16], core) for top, left in places)


def test_without_operations_only_the_square_is_painted():
    """8-bit colors come back as they were, and the square has the grey of 127."""
    mean, std = (torch.tensor(one)[:, None, None] for one in (MEAN, STD))
    colors = torch.randint(0, 256, (4, 3, 28, 28), generator=generator()).float()
    given = (colors / 255 - mean) / std
    views = strong_views(given, generator=generator(), operations=0)
    back = (views * std + mean) * 255
    painted = (back - colors).abs().amax(1) > 0.01
    assert painted.flatten(1).any(1).all()
    assert (painted.flatten(1).sum(1) <= 16).all()  # 28 // 14 pixels to each side
    torch.testing.assert_close(
        back.permute(0, 2, 3, 1)[painted], torch.full((1, 3), 127.0).expand(int(painted.sum()), 3)
    )


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_operations_keep_the_size_and_know_their_strength(name):
    image = Image.linear_gradient("L").resize((30, 20)).convert("RGB")
    image.paste((255, 0, 0), (3, 3, 12, 12))
    changed = OPERATIONS[name](image, 0.9)
    assert changed.size == (30, 20)
    if name in SIGNED:
        assert changed.tobytes() != OPERATIONS[name](image, -0.9).tobytes()
    if name == "identity":
        assert changed.tobytes() == image.tobytes()
