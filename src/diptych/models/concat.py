"""Concat: a text tower and an image tower whose vectors one layer fuses.

This covers two published baselines of Hateful Memes, and their ablations with a single tower:

- DrivenData's benchmark (2020): fastText sentence vector + ResNet-152 features.
- nav13n/multimodal-learning: BERT + the 1000 ImageNet logits of ResNet-101.

And small encoders whose published weights lie in packages: MiniLM with EfficientNet-Lite0 or MobileNetV2.

The last Linear of the originals belongs to the task's head. Difference from nav13n: the text tower does not
attend to padding unless `attend_padding` is set.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.nn.attention import FIRST, AttentionPlaces
from diptych.nn.embeddings import TextEmbedding
from diptych.nn.init import init_bert
from diptych.nn.mobilenet import MobileNet, efficientnet_lite0, mobilenet_v2
from diptych.nn.modalities import require
from diptych.nn.readout import FirstToken
from diptych.nn.resnet import ResNet, resnet101, resnet152, resnet_tiny
from diptych.nn.sizes import require_sizes
from diptych.nn.transformer import Encoder
from diptych.types import EVERYTHING, Encoding, Inputs


class Tower(nn.Module, ABC):
    """Base of the towers: `dropout(relu(project(vector)))` of the vector of one modality.

    Attributes:
        dim: width of the projected output; `width` is that of the vector before it.
    """

    needs: str
    dim: int
    width: int
    project: nn.Linear
    dropout: nn.Dropout

    @abstractmethod
    def encode(self, inputs: Inputs) -> Float[Tensor, "B W"]:
        """Return the vector before the projection."""

    def projected(self, vector: Float[Tensor, "B W"]) -> Float[Tensor, "B D"]:
        """Return the output for a vector that `encode` made."""
        output: Tensor = self.dropout(F.relu(self.project(vector)))
        return output

    def forward(self, inputs: Inputs) -> Float[Tensor, "B D"]:
        return self.projected(self.encode(inputs))


class VectorTower(Tower):
    """`dropout(relu(project(sentence vector)))`."""

    needs = "vectors"

    def __init__(self, vector_dim: int, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        require_sizes(vector_dim=vector_dim, dim=dim)
        self.dim, self.width = dim, vector_dim
        self.project, self.dropout = nn.Linear(vector_dim, dim), nn.Dropout(dropout)

    def encode(self, inputs: Inputs) -> Float[Tensor, "B W"]:
        return require(self, "vectors", inputs.vectors)


class BertTower(Tower):
    """`dropout(relu(project(BERT's vector of the text)))`.

    Args:
        dim: width of the projected output.
        width: width of BERT's states.
        dropout: rate after the projection; `bert_dropout` is the rate inside BERT, attention included.
        attend_padding: attend to padded tokens as if they were real, as nav13n does; a score then depends on
            what else is in the batch.
        mean: the vector of a text is the mean of its tokens' states, as in MiniLM and other sentence
            encoders, and not BERT's pooled first token.
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
        mean: bool = False,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        require_sizes(dim=dim)
        self.dim, self.width, self.attend_padding = dim, width, attend_padding
        self.text = TextEmbedding(vocab_size, width, max_positions=max_positions, dropout=bert_dropout)
        self.encoder = Encoder(
            layers, width, heads=heads, hidden=hidden, dropout=bert_dropout, attention_dropout=bert_dropout
        )
        self.pool = None if mean else FirstToken(width)
        # nav13n takes BERT pre-trained and adds the projection as a new layer.
        # Before the projection is built, which keeps torch's default weights.
        init_bert(self, std=std)
        self.project, self.dropout = nn.Linear(width, dim), nn.Dropout(dropout)

    def encode(self, inputs: Inputs) -> Float[Tensor, "B W"]:
        text = require(self, "text", inputs.text)
        # nav13n calls BERT without a mask.
        mask = torch.ones_like(text.mask) if self.attend_padding else text.mask
        if self.pool is None:
            states, kept = self.encoder(self.text(text), mask), mask[..., None]
            total: Tensor = (states * kept).sum(1) / kept.sum(1).clamp(min=1)
            return total
        # Only the first token is pooled.
        vector: Tensor = self.pool(self.encoder(self.text(text), mask, FIRST))
        return vector


class ImageTower(Tower):
    """`dropout(relu(project(vector)))`, where the network's vector is its average features or its logits.

    Args:
        resnet: the network; a MobileNet keeps the name, which is part of bundles.
    """

    needs = "pixels"

    def __init__(self, resnet: ResNet | MobileNet, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        require_sizes(dim=dim)
        self.dim, self.width, self.resnet = dim, resnet.dim, resnet
        self.project, self.dropout = nn.Linear(resnet.dim, dim), nn.Dropout(dropout)

    def encode(self, inputs: Inputs) -> Float[Tensor, "B W"]:
        vector: Tensor = self.resnet(require(self, "pixels", inputs.pixels))
        return vector


class Concat(nn.Module):
    """`dropout(relu(fuse([text ; image])))`, or the vector of a single tower.

    Args:
        text: text tower; None for a model of images only.
        image: image tower; None for a model of text only.
        dim: width after fusion. A single tower is not fused, so its own width is the model's.
        dropout: rate after fusion.
        frozen: towers, of `text` and `image`, whose networks are not trained and run as in prediction; their
            projections are trained.

    Raises:
        ConfigError: there is no tower, or not the frozen one.
    """

    text_dim = region_dim = 0  # no states of tokens or regions, only the pooled vector

    def __init__(
        self,
        text: VectorTower | BertTower | None,
        image: ImageTower | None,
        *,
        dim: int = 256,
        dropout: float = 0.1,
        frozen: Sequence[str] = (),
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
        self.frozen = tuple(frozen)
        for tower in self._frozen():
            tower.requires_grad_(False)
            tower.project.requires_grad_(True)

    @property
    def tower_dims(self) -> tuple[int, int]:
        """Widths of `Encoding.tower_image` and `.tower_text`; 0 without such a tower."""
        return (self.image.width if self.image else 0, self.text.width if self.text else 0)

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        # A side alone runs its own tower only: a text is embedded without a picture.
        said, seen = (
            tower.encode(inputs) if tower is not None and reads & {"pooled", name} else None
            for name, tower in (("tower_text", self.text), ("tower_image", self.image))
        )
        pooled = self._fused(said, seen) if "pooled" in reads else None
        return Encoding(
            pooled=pooled,
            tower_text=said if "tower_text" in reads else None,
            tower_image=seen if "tower_image" in reads else None,
        )

    def _fused(
        self, said: Float[Tensor, "B V"] | None, seen: Float[Tensor, "B W"] | None
    ) -> Float[Tensor, "B D"]:
        vectors = [
            tower.projected(vector)
            for tower, vector in ((self.text, said), (self.image, seen))
            if tower is not None and vector is not None
        ]
        if self.fuse is None:
            alone: Tensor = vectors[0]
            return alone
        fused: Tensor = self.dropout(F.relu(self.fuse(torch.cat(vectors, 1))))
        return fused

    def train(self, mode: bool = True) -> "Concat":
        super().train(mode)
        for tower in self._frozen():
            # Otherwise dropout would change the vectors, and batch norm its statistics.
            tower.eval()
            tower.dropout.train(mode)
        return self

    def _frozen(self) -> list[Tower]:
        towers: dict[str, Tower | None] = {"text": self.text, "image": self.image}
        if odd := [name for name in self.frozen if towers.get(name) is None]:
            has = ", ".join(name for name, tower in towers.items() if tower is not None)
            raise ConfigError(f"model.frozen names {odd[0]!r}; expected one of the model's towers: {has}.")
        return [tower for name in self.frozen if (tower := towers[name]) is not None]

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


def concat_minilm_efficientnet(*, vocab_size: int = 30522, dim: int = 256, **overrides: Any) -> Concat:
    """MiniLM-L6 (384 numbers) and EfficientNet-Lite0 (1280), both frozen: 26 M parameters."""
    return _minilm(ImageTower(efficientnet_lite0(), dim), vocab_size, dim, **overrides)


def concat_minilm_mobilenet(*, vocab_size: int = 30522, dim: int = 256, **overrides: Any) -> Concat:
    """MiniLM-L6 (384 numbers) and MobileNetV2 (1280), both frozen: 25 M parameters."""
    return _minilm(ImageTower(mobilenet_v2(), dim), vocab_size, dim, **overrides)


def _minilm(image: ImageTower, vocab_size: int, dim: int, **overrides: Any) -> Concat:
    text = BertTower(dim, vocab_size=vocab_size, width=384, hidden=1536, layers=6, dropout=0.0, mean=True)
    return Concat(text, image, dim=dim, **{"frozen": ("text", "image"), **overrides})


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
