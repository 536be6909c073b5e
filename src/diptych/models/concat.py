"""Concat: a text tower and an image tower whose vectors one layer fuses.

This covers two published baselines of Hateful Memes, and their ablations with a single tower:

- DrivenData's benchmark (2020): fastText sentence vector + ResNet-152 features.
- nav13n/multimodal-learning: BERT + the 1000 ImageNet logits of ResNet-101.

The last Linear of the originals belongs to the task's head. Difference from nav13n: the text tower does not
attend to padding unless `attend_padding` is set.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.nn.attention import FIRST, AttentionPlaces
from diptych.nn.embeddings import TextEmbedding
from diptych.nn.init import init_bert
from diptych.nn.modalities import require
from diptych.nn.readout import FirstToken
from diptych.nn.resnet import ResNet, resnet101, resnet152, resnet_tiny
from diptych.nn.sizes import require_sizes
from diptych.nn.transformer import Encoder
from diptych.types import EVERYTHING, Encoding, Inputs


class VectorTower(nn.Module):
    """`dropout(relu(project(sentence vector)))`."""

    needs = "vectors"

    def __init__(self, vector_dim: int, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        require_sizes(vector_dim=vector_dim, dim=dim)
        self.dim = dim
        self.project, self.dropout = nn.Linear(vector_dim, dim), nn.Dropout(dropout)

    def forward(self, inputs: Inputs) -> Float[Tensor, "B D"]:
        vectors = require(self, "vectors", inputs.vectors)
        vector: Tensor = self.dropout(F.relu(self.project(vectors)))
        return vector


class BertTower(nn.Module):
    """`dropout(relu(project(BERT's pooled first token)))`.

    Args:
        dim: width of the projected output.
        width: width of BERT's states.
        dropout: rate after the projection; `bert_dropout` is the rate inside BERT, attention included.
        attend_padding: attend to padded tokens as if they were real, as nav13n does; a score then depends on
            what else is in the batch.
    """

    needs = "text"

    def __init__(
        self,
        dim: int,
        *,
        vocab_size: int = 30522,
        width: int = 768,
        heads: int = 12,
        hidden: int = 3072,
        layers: int = 12,
        max_positions: int = 512,
        dropout: float = 0.1,
        bert_dropout: float = 0.1,
        attend_padding: bool = False,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        require_sizes(dim=dim)
        self.dim, self.attend_padding = dim, attend_padding
        self.text = TextEmbedding(vocab_size, width, max_positions=max_positions, dropout=bert_dropout)
        self.encoder = Encoder(
            layers, width, heads=heads, hidden=hidden, dropout=bert_dropout, attention_dropout=bert_dropout
        )
        self.pool = FirstToken(width)
        # nav13n takes BERT pre-trained and adds the projection as a new layer.
        # Before the projection is built, which keeps torch's default weights.
        init_bert(self, std=std)
        self.project, self.dropout = nn.Linear(width, dim), nn.Dropout(dropout)

    def forward(self, inputs: Inputs) -> Float[Tensor, "B D"]:
        text = require(self, "text", inputs.text)
        # nav13n calls BERT without a mask.
        mask = torch.ones_like(text.mask) if self.attend_padding else text.mask
        pooled = self.pool(self.encoder(self.text(text), mask, FIRST))  # only the first token is pooled
        vector: Tensor = self.dropout(F.relu(self.project(pooled)))
        return vector


class ImageTower(nn.Module):
    """`dropout(relu(project(vector)))`, where ResNet's vector is its average features or its logits."""

    needs = "pixels"

    def __init__(self, resnet: ResNet, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        require_sizes(dim=dim)
        self.dim, self.resnet = dim, resnet
        self.project, self.dropout = nn.Linear(resnet.dim, dim), nn.Dropout(dropout)

    def forward(self, inputs: Inputs) -> Float[Tensor, "B D"]:
        pixels = require(self, "pixels", inputs.pixels)
        vector: Tensor = self.dropout(F.relu(self.project(self.resnet(pixels))))
        return vector


class Concat(nn.Module):
    """`dropout(relu(fuse([text ; image])))`, or the vector of a single tower.

    Args:
        text: text tower; None for a model of images only.
        image: image tower; None for a model of text only.
        dim: width after fusion. A single tower is not fused, so its own width is the model's.
        dropout: rate after fusion.
    """

    text_dim = region_dim = 0  # no states of tokens or regions, only the pooled vector

    def __init__(
        self,
        text: VectorTower | BertTower | None,
        image: ImageTower | None,
        *,
        dim: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        towers = [tower for tower in (text, image) if tower is not None]
        if not towers:
            raise ConfigError("Concat has neither a text tower nor an image tower; give it at least one.")
        self.text, self.image = text, image
        self.needs = frozenset(tower.needs for tower in towers)
        both = len(towers) == 2
        # A single tower goes to the head as it is: fusing one vector would only add a layer to the ablation.
        self.fuse = nn.Linear(sum(tower.dim for tower in towers), dim) if both else None
        self.dropout = nn.Dropout(dropout)
        self.dim = dim if both else towers[0].dim

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        vectors = [tower(inputs) for tower in (self.text, self.image) if tower is not None]
        if self.fuse is None:
            return Encoding(pooled=vectors[0])
        return Encoding(pooled=self.dropout(F.relu(self.fuse(torch.cat(vectors, 1)))))

    def attention_places(self) -> AttentionPlaces:
        # BERT's maps are over the text; a ResNet has none.
        return AttentionPlaces(sides={"*": ("text", "text")})

    def word_embedding(self) -> nn.Embedding | None:
        # Sentence vectors have no table of words, so the vocabulary cannot be checked against it.
        return self.text.text.words if isinstance(self.text, BertTower) else None


def concat_fasttext(
    *,
    vector_dim: int = 150,
    text_features: int = 300,
    image_features: int = 300,
    dim: int = 256,
    dropout: float = 0.1,
    freeze_batch_norm: bool = False,
) -> Concat:
    """DrivenData's benchmark: sentence vectors and ResNet-152; dropout after fusion only."""
    # DrivenData cuts ResNet's classifier off, nav13n keeps it and reads its 1000 logits.
    resnet = resnet152(classes=None, freeze_batch_norm=freeze_batch_norm)
    text, image = VectorTower(vector_dim, text_features), ImageTower(resnet, image_features)
    return Concat(text, image, dim=dim, dropout=dropout)


def concat_bert(
    *,
    vocab_size: int = 30522,
    text_features: int = 128,
    image_features: int = 128,
    dim: int = 128,
    dropout: float = 0.1,
    attend_padding: bool = False,
    freeze_batch_norm: bool = False,
) -> Concat:
    """nav13n's concat_bert: BERT-base and the ImageNet logits of ResNet-101; dropout 0.1 in both towers."""
    text = BertTower(text_features, vocab_size=vocab_size, attend_padding=attend_padding)
    image = ImageTower(resnet101(freeze_batch_norm=freeze_batch_norm), image_features, dropout=0.1)
    return Concat(text, image, dim=dim, dropout=dropout)


def text_fasttext(*, vector_dim: int = 150, text_features: int = 300, dropout: float = 0.1) -> Concat:
    """Sentence vectors alone, with the widths of `concat_fasttext` and the dropout of nav13n's ablation."""
    return Concat(VectorTower(vector_dim, text_features, dropout=dropout), None)


def text_bert(
    *,
    vocab_size: int = 30522,
    text_features: int = 128,
    dropout: float = 0.1,
    attend_padding: bool = False,
) -> Concat:
    """nav13n's unimodal_bert, as meant: BERT-base alone."""
    tower = BertTower(text_features, vocab_size=vocab_size, dropout=dropout, attend_padding=attend_padding)
    return Concat(tower, None)


def image_resnet(
    *, image_features: int = 256, dropout: float = 0.1, freeze_batch_norm: bool = False
) -> Concat:
    """nav13n's unimodal_image: the ImageNet logits of ResNet-101 alone."""
    resnet = resnet101(freeze_batch_norm=freeze_batch_norm)
    return Concat(None, ImageTower(resnet, image_features, dropout=dropout))


def concat_fasttext_tiny(
    *,
    vector_dim: int = 150,
    text_features: int = 48,
    image_features: int = 48,
    dim: int = 48,
    dropout: float = 0.1,
    freeze_batch_norm: bool = False,
) -> Concat:
    """Sentence vectors and a small ResNet."""
    resnet = resnet_tiny(freeze_batch_norm=freeze_batch_norm)
    text, image = VectorTower(vector_dim, text_features), ImageTower(resnet, image_features)
    return Concat(text, image, dim=dim, dropout=dropout)


def concat_bert_tiny(
    *,
    vocab_size: int = 1000,
    text_features: int = 48,
    image_features: int = 48,
    dim: int = 48,
    dropout: float = 0.1,
    attend_padding: bool = False,
    freeze_batch_norm: bool = False,
) -> Concat:
    """A BERT of 2 layers and a small ResNet."""
    text = _tiny_bert(text_features, vocab_size=vocab_size, attend_padding=attend_padding)
    image = ImageTower(resnet_tiny(freeze_batch_norm=freeze_batch_norm), image_features, dropout=0.1)
    return Concat(text, image, dim=dim, dropout=dropout)


def text_fasttext_tiny(*, vector_dim: int = 150, text_features: int = 48, dropout: float = 0.1) -> Concat:
    """Sentence vectors alone."""
    return text_fasttext(vector_dim=vector_dim, text_features=text_features, dropout=dropout)


def text_bert_tiny(
    *, vocab_size: int = 1000, text_features: int = 48, dropout: float = 0.1, attend_padding: bool = False
) -> Concat:
    """A BERT of 2 layers alone."""
    tower = _tiny_bert(text_features, vocab_size=vocab_size, dropout=dropout, attend_padding=attend_padding)
    return Concat(tower, None)


def image_resnet_tiny(
    *, image_features: int = 48, dropout: float = 0.1, freeze_batch_norm: bool = False
) -> Concat:
    """A small ResNet alone."""
    resnet = resnet_tiny(freeze_batch_norm=freeze_batch_norm)
    return Concat(None, ImageTower(resnet, image_features, dropout=dropout))


def _tiny_bert(dim: int, **overrides: Any) -> BertTower:
    # Large initial weights and no dropout inside BERT: see `uniter_tiny`.
    return BertTower(dim, width=48, heads=4, hidden=192, layers=2, bert_dropout=0.0, std=0.2, **overrides)
