"""Pictures that are in no store, for heads that were trained on stored vectors: the towers embed them now."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from diptych.bundle import load_bundle
from diptych.data import Sources
from diptych.errors import ConfigError
from diptych.models import JointEmbeddings
from diptych.predict.embed import described, embed_dataset, embed_texts, side_by_side
from diptych.predict.given import Listed
from diptych.predict.pairs import JointScorer, Sides
from diptych.predict.predictor import Predictor, load
from diptych.predict.splits import bundle_checksum
from diptych.types import Example, FeatureMeta, Pair


def require_towers(head: FeatureMeta, towers: Path) -> str:
    """Check that a model has made the vectors that a head was trained on; return the checksum of its bundle.

    Raises:
        ConfigError: another model made them.
    """
    checksum = bundle_checksum(towers)
    # The name of a store is the user's choice; what tells the model is the checksum behind it.
    if head.detector.rpartition(" ")[2] != checksum[:16]:
        raise ConfigError(
            f"{towers} has the checksum {checksum[:16]}; the head was trained on vectors of {head.detector}. "
            "Vectors of different models are not comparable; give the model that made them."
        )
    return checksum


@contextmanager
def embedded(
    head: FeatureMeta, towers: Path, image: Path, text: str, *, device: str = "auto", precision: str = "32"
) -> Iterator[Path]:
    """Yield a store of one picture and its text, with its file stem as key; it exists within the block.

    Args:
        head: description of the vectors that the head was trained on.
        towers: the model that made them, a run or a bundle.

    Raises:
        ConfigError: another model made them.
    """
    from diptych.features.vectors import write_vectors  # loads pyarrow, which other predictions do without

    checksum = require_towers(head, towers)
    name = head.detector.rpartition(" ")[0]
    widths = {part: int(width) for part, width in (one.rsplit(":", 1) for one in head.parts)}
    predictor = load(towers, device=device, precision=precision, pretrained=True)
    example = Example(id=image.stem, pairs=(Pair(image=image.stem, text=text),))
    vectors = embed_dataset(predictor, Listed([example]), [*widths], images={image.stem: image})
    with TemporaryDirectory() as folder:
        store = Path(folder) / "vectors"
        rows = side_by_side(vectors)
        write_vectors(store, zip([image.stem], rows, strict=True), described(name, checksum, widths))
        yield store


def stored_vectors(run: Path) -> FeatureMeta | None:
    """Description of the vectors that a run's head reads; None if it reads none."""
    meta = load_bundle(run).features
    return meta if meta is not None and meta.parts else None


class TowersScorer(JointScorer):
    """The cosine of pictures and texts that the towers embed now and the layers of a run bring together.

    Unlike a store, which has one text beside each picture, this takes any number of texts for one.

    Args:
        towers: the model that made the vectors of the training.
    """

    def __init__(self, predictor: Predictor, sides: Sides, sources: Sources, *, towers: Predictor) -> None:
        super().__init__(predictor, sides, sources)
        self.towers = towers

    @cached_property
    def vectors(self) -> tuple[Float[Tensor, "N D"], Float[Tensor, "M D"]]:
        model, left = self.predictor.model, self.sides.left
        assert isinstance(model, JointEmbeddings), "checked by towers_of()"
        pictures = Listed([Example(id=str(pair.image), pairs=(pair,)) for pair in left])
        seen = embed_dataset(self.towers, pictures, ["tower_image"], images=self.sources.images)
        said = embed_texts(self.towers, self.sides.right, ["tower_text"])
        sides = ((model.image, seen["tower_image"]), (model.text, said["tower_text"]))
        with torch.inference_mode():
            image, text = (
                F.normalize(layers(torch.from_numpy(rows).to(self.device)), dim=-1) for layers, rows in sides
            )
        return image, text


def towers_of(predictor: Predictor, folder: Path) -> Predictor:
    """Load the towers on whose vectors the layers of a run were trained.

    Raises:
        ConfigError: the run has no such layers, or another model made its vectors.
    """
    head = predictor.bundle.features
    if head is None or not isinstance(predictor.model, JointEmbeddings):
        raise ConfigError(
            f"towers={folder} is given, but {type(predictor.model).__name__} was not trained on stored"
            " vectors of two towers (model=joint_embeddings); leave it out."
        )
    require_towers(head, folder)
    how = {"device": str(predictor.device), "precision": predictor.precision}
    return load(folder, pretrained=True, **how)
