"""The text embedding that most families share."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.nn.sizes import require_sizes
from diptych.types import PaddedText


class TextEmbedding(nn.Module):
    """`dropout(norm(word + position + segment))`; positions count from 0 in every row.

    Args:
        word_padding: row of the word table that gets no gradient; None if all rows are trained.
        position_padding: the same for the position table.
        segment_padding: the same for the segment table.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        *,
        max_positions: int = 512,
        segments: int = 2,
        word_padding: int | None = 0,
        position_padding: int | None = None,
        segment_padding: int | None = None,
        dropout: float = 0.1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        require_sizes(vocab_size=vocab_size, dim=dim, max_positions=max_positions, segments=segments)
        self.words = nn.Embedding(vocab_size, dim, padding_idx=word_padding)
        self.positions = nn.Embedding(max_positions, dim, padding_idx=position_padding)
        self.segments = nn.Embedding(segments, dim, padding_idx=segment_padding)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, text: PaddedText) -> Float[Tensor, "B T D"]:
        length = text.ids.shape[1]
        # Before the look-up, which on a GPU would end in an assertion without a name.
        if length > self.positions.num_embeddings:
            raise ConfigError(
                f"a text of {length} tokens exceeds the {self.positions.num_embeddings} positions of the "
                "model; lower processor.max_tokens."
            )
        positions = self.positions(torch.arange(length, device=text.ids.device))
        # The text is padded on the right, so positions need not be counted over real tokens.
        x = self.norm(self.words(text.ids) + positions + self.segments(text.segments))
        states: Tensor = self.dropout(x)
        return states
