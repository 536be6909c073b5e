import pytest
import torch

from diptych.errors import ConfigError
from diptych.models import uniter_tiny, vlbert_tiny
from diptych.nn import Decoder, init_bert


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    decoder = Decoder(2, 8, heads=2, hidden=16, max_positions=6).eval()
    init_bert(decoder, std=0.5)
    return decoder


@pytest.fixture(scope="module")
def context():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 5, 8, generator=generator), torch.arange(5) < torch.tensor([[5], [3], [1]])


def words(length, rows=3):
    return torch.randn(rows, length, 8, generator=torch.Generator().manual_seed(2))


def test_no_position_looks_ahead(decoder, context):
    seen, given = decoder.look(*context), words(6)
    whole, _ = decoder(given, seen)
    for length in range(1, 6):
        changed = given.clone()
        changed[:, length:] *= -2
        part, _ = decoder(changed, seen)
        torch.testing.assert_close(part[:, :length], whole[:, :length])
        assert not torch.allclose(part[:, length], whole[:, length])


@pytest.mark.parametrize("parts", [[1] * 6, [2, 1, 3], [6]])
def test_going_on_from_what_is_kept_equals_computing_all_again(decoder, context, parts):
    seen, given = decoder.look(*context), words(6)
    whole, _ = decoder(given, seen)
    states = []
    for part in given.split(parts, 1):
        one, seen = decoder(part, seen)
        states.append(one)
    torch.testing.assert_close(torch.cat(states, 1), whole, atol=1e-6, rtol=1e-5)
    assert seen.length == 6


def test_padding_of_the_encoder_is_not_seen(decoder, context):
    states, mask = context
    other = torch.where(mask[..., None], states, 9.0)
    first, _ = decoder(words(4), decoder.look(states, mask))
    second, _ = decoder(words(4), decoder.look(other, mask))
    torch.testing.assert_close(first, second)


def test_rows_can_be_reordered_and_repeated_between_steps(decoder, context):
    rows = torch.tensor([2, 0, 0])
    _, seen = decoder(words(3), decoder.look(*context))
    moved, _ = decoder(words(1)[rows], seen.map(lambda one: one[rows]))
    straight, _ = decoder(words(1), seen)
    torch.testing.assert_close(moved, straight[rows])


def test_more_positions_than_embeddings_are_refused(decoder, context):
    with pytest.raises(ConfigError, match=r"7 tokens.*6 positions"):
        decoder(words(7), decoder.look(*context))


@pytest.mark.parametrize("build", [vlbert_tiny, uniter_tiny])
def test_a_decoder_starts_from_the_layers_of_a_bert(build):
    model = build(max_positions=20)
    decoder = Decoder(1, 48, heads=4, hidden=192, max_positions=9)
    before = decoder.layers[0].cross.query.weight.clone()
    decoder.start_from(model)
    layer = next(part for name, part in model.named_modules() if name.endswith("layers.0"))
    assert torch.equal(decoder.layers[0].attention.query.weight, layer.attention.query.weight)
    assert torch.equal(decoder.layers[0].feedforward.expand.weight, layer.feedforward.expand.weight)
    assert torch.equal(decoder.layers[0].cross.query.weight, before)
    table = next(one.positions for one in model.modules() if hasattr(one, "positions"))
    assert torch.equal(decoder.positions.weight, table.weight[:9])


@pytest.mark.parametrize(("sizes", "told"), [((3, 48, 192), "3.*2"), ((1, 48, 96), r"96, 48.*192, 48")])
def test_other_sizes_are_no_start(sizes, told):
    layers, dim, hidden = sizes
    with pytest.raises(ConfigError, match=told):
        Decoder(layers, dim, heads=4, hidden=hidden).start_from(vlbert_tiny())
