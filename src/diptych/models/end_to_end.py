"""End-to-end training: a ResNet computes region features from pixels and boxes and learns with the model.

The method is VL-BERT's (Su et al., 2020, https://arxiv.org/abs/1908.08530; original: jackroos/VL-BERT) and
works with any region model. ResNet's first three stages run over the picture, RoIAlign pools every box, the
fourth stage runs on each region, and its average is the feature. Where pre-training hides a region, a model
may replace its feature by a vector of its own. VL-BERT keeps the feature of the blanked pixels instead
(`vlbert_base(hide_features=False)`).
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.nn.attention import AttentionPlaces, attention_places
from diptych.nn.init import initial_std
from diptych.nn.modalities import require
from diptych.nn.resnet import ResNet
from diptych.nn.roi import roi_align
from diptych.nn.sizes import require_sizes
from diptych.types import EVERYTHING, Encoding, Inputs, PaddedRegions

STRIDE = 16  # pixels per cell of ResNet's third stage
MOST = 256  # sampling points per box and direction; VL-BERT has 14


class RegionEncoder(nn.Module):
    """Compute one vector of width `dim` per region from pixels and boxes.

    The pixels of a batch are padded with zeros on the right and at the bottom. `regions.resized` holds the
    size of each picture inside them; if it is None, `regions.sizes` does. In training the ResNet runs over
    the padded batch, so padding influences the cells at a picture's border, as in the original. In evaluation
    each picture is cropped first, so that its features do not depend on the rest of the batch. Existing
    region features are ignored and may have width 0.

    Args:
        resnet: image network. VL-BERT's is `resnet101(classes=None, stride_first=True, dilate_last=True,
            frozen=2, freeze_batch_norm=True)`.
        size: bins per box and direction.
        samples: see `roi_align`, also for `aligned`; the defaults are VL-BERT's.
        hide_pixels: zero the pixels inside the boxes of hidden regions, so that overlapping boxes do not
            show them.
    """

    def __init__(
        self,
        resnet: ResNet,
        *,
        size: int = 14,
        samples: int = 1,
        aligned: bool = False,
        hide_pixels: bool = True,
    ) -> None:
        super().__init__()
        require_sizes(size=size)
        if samples < 0 or size * max(samples, 1) > MOST:
            raise ConfigError(f"{size} bins of {samples} samples per box; expected at most {MOST} in all.")
        self.resnet, self.dim = resnet, resnet.dim
        self.size, self.samples, self.aligned = size, samples, aligned
        self.hide_pixels = hide_pixels

    def forward(self, pixels: Float[Tensor, "B 3 h w"], regions: PaddedRegions) -> Float[Tensor, "B R F"]:
        """Return the features of all regions, with zeros for padded ones.

        Raises:
            ConfigError: a picture is larger than the pixels, a row has regions of a second picture, or
                silhouettes have another resolution than the regions.
        """
        sizes = regions.sizes if regions.resized is None else regions.resized
        # Before anything is computed: wrong sizes would pool the padding, and nothing would fail.
        _check(pixels, regions, sizes)
        boxes = regions.boxes * sizes.repeat(1, 2)[:, None]  # from [0, 1] to pixels
        if self.hide_pixels and regions.hidden is not None:
            pixels = pixels.masked_fill(_holes(pixels, boxes, regions.hidden & regions.mask), 0)
        # Texts of a corpus beside the captions have no picture: their rows of zeros are left out.
        shown = regions.mask.any(1) | ~regions.mask.any()
        if not shown.all():
            pixels, sizes, boxes = pixels[shown], sizes[shown], boxes[shown]
        maps = self._maps(pixels, sizes)
        # Only real regions go through the fourth stage: a padded one would cost as much as a real one.
        pooled = torch.cat([self._pool(*row) for row in zip(maps, boxes, regions.mask[shown], strict=True)])
        # Channels-last is the fastest layout for convolutions; the mean below needs single precision.
        states = self.resnet.layer4(pooled.contiguous(memory_format=torch.channels_last)).float()
        if regions.silhouettes is not None:
            if regions.silhouettes.shape[2:] != states.shape[2:]:
                raise ConfigError(
                    f"silhouettes have {tuple(regions.silhouettes.shape[2:])} cells; the regions of this "
                    f"network have {tuple(states.shape[2:])}. Resize them; of VCR, with data.cells."
                )
            # VL-BERT weighs the cells by the object's mask (VCR),
            # so that the background in a box counts less.
            states = states * regions.silhouettes[regions.mask][:, None]
        features: Tensor = states.new_zeros(*regions.mask.shape, self.dim)
        # A boolean index goes row by row, which is the order in which the regions were concatenated.
        features[regions.mask] = states.mean((2, 3))
        return features

    def _maps(
        self, pixels: Float[Tensor, "B 3 h w"], sizes: Float[Tensor, "B 2"]
    ) -> list[Float[Tensor, "D _ _"]]:
        """Feature map of the third stage for every picture."""
        # One pass for the batch, as in the original; cropping would be slower and change the batch norms.
        if self.training:
            return list(self.resnet.body(pixels))
        # Cropped pictures of one size run together; others cannot share a batch.
        rows_by_size: dict[tuple[int, int], list[int]] = {}
        for row, (width, height) in enumerate(sizes.int().tolist()):
            rows_by_size.setdefault((width, height), []).append(row)
        maps: dict[int, Tensor] = {}
        for (width, height), rows in rows_by_size.items():
            maps |= dict(zip(rows, self.resnet.body(pixels[rows, :, :height, :width]), strict=True))
        return [maps[row] for row in range(len(pixels))]

    def _pool(
        self, features: Float[Tensor, "D h w"], boxes: Float[Tensor, "R 4"], mask: Tensor
    ) -> Float[Tensor, "K D s s"]:
        return roi_align(
            features,
            boxes[mask],
            size=self.size,
            scale=1 / STRIDE,
            samples=self.samples,
            aligned=self.aligned,
        )


def _check(pixels: Tensor, regions: PaddedRegions, sizes: Float[Tensor, "B 2"]) -> None:
    height, width = pixels.shape[2:]
    widest, highest = sizes.amax(0).tolist()
    if widest > width or highest > height:
        raise ConfigError(
            f"the regions belong to a picture of {widest:g} x {highest:g}, but the pixels are {width} x "
            f"{height}; expected the size of the picture inside the pixels."
        )
    # Padded regions may have any index.
    if (regions.image_index * regions.mask).any():
        raise ConfigError("a row has regions of two pictures; end-to-end training takes one picture per row.")


def _holes(pixels: Tensor, boxes: Float[Tensor, "B R 4"], hidden: Tensor) -> Tensor:
    """Mask of the pixels inside hidden boxes, including the pixel at the lower right corner."""
    # Dividing by the size and multiplying again may turn 5 into 4.9999; the margin keeps floor() at 5.
    x1, y1, x2, y2 = (boxes + 1e-3).floor().unsqueeze(-1).unbind(2)
    height, width = (torch.arange(side, device=pixels.device) for side in pixels.shape[2:])
    rows = (height >= y1) & (height <= y2) & hidden[..., None]
    columns = (width >= x1) & (width <= x2)
    # A pixel is hidden if any box covers both its row and its column: a sum over boxes, so a matrix product.
    return (rows.float().mT @ columns.float() > 0)[:, None]


class EndToEnd(nn.Module):
    """A region model on top of a `RegionEncoder`, so that it reads pixels and boxes instead of features.

    Args:
        regions: region encoder; its `dim` must equal `model.feature_dim`.
        model: any model that reads regions.

    Raises:
        ConfigError: the widths differ.
    """

    def __init__(self, regions: RegionEncoder, model: Any) -> None:
        super().__init__()
        if regions.dim != model.feature_dim:
            raise ConfigError(
                f"the region encoder gives features of width {regions.dim}; {type(model).__name__} takes "
                f"width {model.feature_dim}. Set feature_dim={regions.dim} for that model."
            )
        self.regions, self.model = regions, model
        # The model still reads regions, for their boxes and masks.
        self.needs = frozenset({"pixels", *model.needs})
        self.dim, self.text_dim, self.region_dim = model.dim, model.text_dim, model.region_dim
        self.std = initial_std(model)

    def forward(self, inputs: Inputs, reads: frozenset[str] = EVERYTHING) -> Encoding:
        regions = require(self, "regions", inputs.regions)
        if inputs.pixels is None and not regions.mask.any():
            # Texts alone: nothing to pool.
            features = regions.features.new_zeros(*regions.mask.shape, self.regions.dim)
        else:
            features = self.regions(require(self, "pixels", inputs.pixels), regions)
        # New inputs: the batch may be used again, by the next group of objectives for example.
        seen = replace(inputs, regions=replace(regions, features=features))
        encoding: Encoding = self.model(seen, reads=reads)
        return encoding

    def attention_places(self) -> AttentionPlaces:
        return attention_places(self.model)

    def word_embedding(self) -> nn.Embedding | None:
        words: nn.Embedding | None = self.model.word_embedding()
        return words
