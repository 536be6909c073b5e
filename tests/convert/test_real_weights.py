"""The weights that packages hold compute what their originals compute."""

import warnings
from pathlib import Path

import sklearn
import torch

from diptych.convert import load_mobilenet
from diptych.convert.bert import load_bert
from diptych.data import Row, SquareTransform, pad
from diptych.images import open_image
from diptych.models import concat_minilm_efficientnet
from diptych.nn import efficientnet_lite0
from diptych.text import WordPiece

TEXTS = ["A man is eating food.", "A man is eating a piece of bread.", "A train leaves the station."]


def test_minilm_is_the_original(weights):
    """Against transformers with the mean of sentence-transformers, and the similarity in its documents."""
    folder = weights("minilm")
    tower = concat_minilm_efficientnet().text.eval()
    load_bert(tower, folder)
    words = WordPiece(folder / "vocab.txt", lowercase=True)
    inputs = pad([Row(tokens=words.encode(one, max_tokens=32)) for one in TEXTS], pad_id=0, labels=False)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        from transformers import BertModel

        ours = tower.encode(inputs)
        ids, mask = inputs.text.ids, inputs.text.mask
        states = BertModel.from_pretrained(folder).eval()(ids, attention_mask=mask.long()).last_hidden_state
    mask = mask[..., None]
    torch.testing.assert_close(ours, (states * mask).sum(1) / mask.sum(1), atol=1e-5, rtol=1e-4)
    cosines = torch.nn.functional.cosine_similarity(ours[:1], ours[1:])
    assert abs(cosines[0] - 0.755) < 0.005
    assert cosines[1] < 0.2


def test_efficientnet_recognizes_photographs(weights):
    """Photographs of scikit-learn: a palace of Peking, and a flower."""
    network = efficientnet_lite0(classes=1000).eval()
    load_mobilenet(network, weights("efficientnet_lite0"))
    transform = SquareTransform(mean=[0.5] * 3, std=[0.5] * 3, shape="crop")
    folder = Path(sklearn.__file__).parent / "datasets" / "images"
    pixels = torch.stack([transform(open_image(folder / name)) for name in ("china.jpg", "flower.jpg")])
    with torch.inference_mode():
        best = network(pixels).topk(3).indices.tolist()
    assert 698 in best[0]  # palace
    assert 985 in best[1]  # daisy
