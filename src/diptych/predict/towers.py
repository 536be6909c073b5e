"""A picture that is in no store, for heads that were trained on stored vectors: their towers embed it now."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from diptych.bundle import load_bundle
from diptych.errors import ConfigError
from diptych.predict.embed import described, embed_dataset, side_by_side
from diptych.predict.given import Listed
from diptych.predict.predictor import load
from diptych.predict.splits import bundle_checksum
from diptych.types import Example, FeatureMeta, Pair


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

    checksum = bundle_checksum(towers)
    # The name of a store is the user's choice; what tells the model is the checksum behind it.
    name, _, known = head.detector.rpartition(" ")
    if known != checksum[:16]:
        raise ConfigError(
            f"{towers} has the checksum {checksum[:16]}; the head was trained on vectors of {head.detector}. "
            "Vectors of different models are not comparable; give the model that made them."
        )
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
