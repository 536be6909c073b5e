"""A trained model that predicts single examples, many examples, or the examples of a split."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL.Image import Image
from torch.utils.data import DataLoader

from diptych.bundle import Bundle, load_bundle
from diptych.data import BoxSource, Collate, Row, Sources, pad, require_sources
from diptych.data.sampler import Batches, images_together, longest_first
from diptych.data.stream import ids_of, images_of
from diptych.errors import ConfigError
from diptych.nn import to_int8
from diptych.predict.given import GivenRegions, Listed
from diptych.predictions import Predictions
from diptych.tasks import Answer, Predicting
from diptych.types import (
    Batch,
    Dataset,
    Example,
    Pair,
    Progress,
    Regions,
    RegionSource,
    VisionLanguageModel,
)

PRECISIONS = ("32", "bf16", "int8")
BEST = 5  # answers with their scores in a verdict
Picture = str | Path | Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Prediction for one example.

    Args:
        answer: the predicted answer, or the generated sentence.
        scores: probabilities by class name, or of the `BEST` answers, best first; empty if the task has none.
        box: x1 y1 x2 y2 in pixels, for tasks that predict a box.
        families: of a study, the probability that the average of each model family gives.
        members: of a study, the probability that each member gives.
        threshold: of a study, the probability from which the answer is the second class; fitted on dev.
    """

    answer: str
    scores: Mapping[str, float]
    box: tuple[float, ...] | None = None
    families: Mapping[str, float] = field(default_factory=dict)
    members: Mapping[str, float] = field(default_factory=dict)
    threshold: float | None = None

    @property
    def probability(self) -> float:
        """Probability of the second of two classes, which is the positive one; else that of the answer.

        Raises:
            ConfigError: the task keeps no scores.
        """
        if not self.scores:
            raise ConfigError("the task answers without probabilities, so there is no score.")
        return self.scores[self.answer] if len(self.scores) > 2 else [*self.scores.values()][-1]


class Predictor:
    """Predicts with a trained model.

    Args:
        bundle: the trained model with its task and processor.
        device: a torch device; `auto` uses a GPU if there is one.
        precision: `32`; `bf16` for autocast; `int8` for `nn.to_int8`, on CPUs alone and without gradients.
        pretrained: also accept a pre-trained model without a task, which cannot predict.
    """

    def __init__(
        self, bundle: Bundle, *, device: str = "auto", precision: str = "32", pretrained: bool = False
    ) -> None:
        if precision not in PRECISIONS:
            raise ConfigError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}.")
        if not (pretrained or isinstance(bundle.task, Predicting)):
            raise ConfigError(
                "this bundle has a pre-trained model without a task; fine-tune it with `diptych train` and "
                "weights.model=RUN first."
            )
        self.bundle, self.device, self.precision = bundle, find_device(device), precision
        # Modules move in place, so the bundle's own model moves, too.
        self.model = bundle.model.to(self.device)
        if precision == "int8":
            if self.device.type != "cpu":
                raise ConfigError(f"precision int8 is for CPUs, not {self.device}; use bf16 there.")
            to_int8(self.model)
        self.task = cast(Predicting, bundle.task.to(self.device))  # of a pre-trained model, its objectives
        self.processor = bundle.processor
        self.needs = cast(VisionLanguageModel, bundle.model).needs

    def predict(
        self,
        *,
        text: str = "",
        image: Picture | Sequence[Picture] | None = None,
        regions: Regions | Sequence[Regions] | RegionSource | None = None,
    ) -> Verdict:
        """Predict one text and its image, or its images where a task compares several (NLVR2).

        Args:
            image: a picture file or a Pillow image, for models that read pixels; several in their order.
            regions: regions of each picture, for models that read regions, or a store with the file stem of
                `image` as key. End-to-end models take `data.bare_regions`, or None for their grid of boxes.
        """
        if regions is not None and not isinstance(regions, Regions | Sequence):
            if self.bundle.features is not None:
                regions.meta.require_like(self.bundle.features, where=getattr(regions, "path", "the regions"))
            # Looked up by the file stem, the key of a picture in every store.
            store, pictures = regions, _several(image)
            regions = [store[Path(str(picture)).stem] for picture in pictures]
        return self.predict_many(texts=[text], images=[image], regions=[regions])[0]

    def predict_many(
        self,
        *,
        texts: Sequence[str],
        images: Sequence[Picture | Sequence[Picture] | None] | None = None,
        regions: Sequence[Regions | Sequence[Regions] | None] | None = None,
        batch_size: int = 32,
    ) -> list[Verdict]:
        """Predict many texts and their images, given as lists of equal length.

        Raises:
            ConfigError: the lists differ in length, an input that the model reads is missing, or the task
                compares another number of images.
        """
        for name, values in (("images", images), ("regions", regions)):
            if values is not None and len(values) != len(texts):
                raise ConfigError(
                    f"there are {len(texts)} texts but {len(values)} {name}; expected equal numbers."
                )
            if odd := {len(_several(value)) for value in values or ()} - {0, self.images}:
                raise ConfigError(f"the model takes {self.images} picture(s) with a text; got {max(odd)}.")
        # keys of the pictures of every text
        keys = [tuple(f"{number}.{place}" for place in range(self.images)) for number in range(len(texts))]
        # Keys of our own: file names may repeat in a list, and opened pictures have none.
        given_images, given_regions = _by_key(keys, images), _by_key(keys, regions)
        every = [key for own in keys for key in own]
        # An end-to-end model with a grid makes its own boxes, so regions need not be given.
        gridded = self.processor.grid is not None and not given_regions
        self._require_given(every, given_images, every if gridded else given_regions)
        examples = [
            self.example(str(number), keys=own, text=text)
            for number, (own, text) in enumerate(zip(keys, texts, strict=True))
        ]
        source = GivenRegions(given_regions, detector=self.bundle.features) if given_regions else None
        predictions = self._scoring().predict_dataset(
            Listed(examples), features=source, images=given_images or None, batch_size=batch_size
        )
        boxes = predictions.boxes
        return [
            Verdict(
                answer=answer,
                scores=self._scores(predictions, number),
                box=None if boxes is None else tuple(map(float, boxes[number])),
            )
            for number, answer in enumerate(predictions.answers or predictions.texts or ())
        ]

    @property
    def images(self) -> int:
        """Number of pictures that belong to one text: 2 for NLVR2."""
        pairs: int = getattr(self.task, "pairs", 1)
        return 2 if self._together else pairs

    @property
    def _together(self) -> bool:
        """Whether the model was trained on rows with both pictures, as `data.together` says."""
        node = self.bundle.provenance.get("data")
        return isinstance(node, Mapping) and bool(node.get("together"))

    def example(self, id: str, *, keys: tuple[str, ...], text: str, text_b: str | None = None) -> Example:
        """An example with pairs as in training: one with both images, or one for each image.

        Args:
            keys: of the images; none for a text alone.
        """
        images = [keys] if self._together else keys or (None,)
        return Example(id=id, pairs=tuple(Pair(image=image, text=text, text_b=text_b) for image in images))

    def _scoring(self) -> "Predictor":
        """This predictor with the scores of all answers, which are too many to keep for whole splits."""
        if not isinstance(self.task, Answer) or self.task.keep_scores:
            return self
        # Shallow copies: the weights are shared, and the caller's task keeps its setting.
        other = copy(self)
        other.task = copy(self.task)
        other.task.keep_scores = True
        return other

    def _scores(self, predictions: Predictions, row: int) -> dict[str, float]:
        if predictions.scores is None:
            return {}
        named = dict(zip(predictions.classes or (), map(float, predictions.scores[row]), strict=True))
        if isinstance(self.task, Answer):
            # Of thousands of answers, only the best say something.
            named = dict(sorted(named.items(), key=lambda pair: -pair[1])[:BEST])
        return named

    def predict_dataset(
        self,
        dataset: Dataset,
        *,
        features: RegionSource | None = None,
        images: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        workers: int = 0,
        progress: Progress | None = None,
    ) -> Predictions:
        """Predict every example of a split; predictions have the order of the split.

        Args:
            features: source of regions; must match the features of training. None for models without
                regions, and for end-to-end models with a grid.
            images: picture files by key; by default those of the data set.
            progress: called with the number of finished examples and the total.

        Raises:
            MissingFeatures: some images have no regions; raised before anything is computed.
            ConfigError: a source is missing, or features come from another detector.
        """
        sources = self.sources(dataset, features=features, images=images)
        parts, done = [], 0
        batches = self.batches(dataset, sources, batch_size)
        for part in self.predict_batches(dataset, sources, batches, workers=workers):
            parts.append(part)
            done += len(part)
            if progress is not None:
                progress(done, len(dataset))
        # Batches are sorted by length; align() restores the order of the split.
        return Predictions.concat(parts).align(ids_of(dataset))

    def sources(
        self,
        dataset: Dataset,
        *,
        features: RegionSource | None = None,
        images: Mapping[str, Any] | None = None,
    ) -> Sources:
        """Collect the sources of regions and pixels and check them; see `predict_dataset`."""
        if features is not None and self.bundle.features is not None:
            features.meta.require_like(self.bundle.features, where=getattr(features, "path", "the regions"))
        if images is None or (isinstance(images, dict) and not images):  # others are slow to look through
            images = getattr(dataset, "images", None)
        if features is None and self.processor.grid is not None and images is not None:
            features = BoxSource(images, grid=self.processor.grid)
        return Sources(regions=features, images=images)

    def batches(self, dataset: Dataset, sources: Sources, batch_size: int) -> Batches:
        """Group the indices of examples into batches of similar length, longest first."""
        require_sources(self.needs, self.processor, sources, dataset)
        if not len(dataset):
            raise ConfigError("there is nothing to predict: the split has no examples.")
        # Similar lengths save padding, and the longest batch first shows at once if memory is too small.
        lengths = Collate(self.processor, sources=sources).lengths(dataset)
        images = images_of(dataset) if self.shares_regions else None
        # With fewer than two texts per image, batches of equal lengths save more than shared regions.
        if images is None or 2 * len(np.unique(images)) > len(images):
            return longest_first(lengths, batch_size=batch_size)
        return images_together(lengths, images, batch_size=batch_size)

    @property
    def shares_regions(self) -> bool:
        """Whether the regions of an image are computed once for all texts about it.

        Requires a model whose region encoder does not read the text, and a task that does not read regions.
        """
        return getattr(self.model, "shares_regions", False) and "regions" not in self.task.reads

    def predict_batches(
        self,
        dataset: Dataset,
        sources: Sources,
        batches: Sequence[list[int]],
        *,
        workers: int = 0,
    ) -> Iterator[Predictions]:
        """Yield the predictions of one batch at a time."""
        loader: DataLoader[Example] = DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=Collate(self.processor, sources=sources, share=self.shares_regions),
            num_workers=workers,
        )
        yield from self._run(loader)

    def predict_rows(self, examples: Sequence[Sequence[Row]]) -> Predictions:
        """Predict a batch of examples whose rows were changed after the processor made them.

        Args:
            examples: the rows of each example's pairs.
        """
        return next(self._scoring()._run([self.batch_of(examples)]))

    def batch_of(self, examples: Sequence[Sequence[Row]]) -> Batch:
        """Pad the rows of examples to a batch without targets."""
        pad_id = 0 if self.processor.text is None else self.processor.text.pad_id
        rows = [row for example in examples for row in example]
        # All examples have as many pairs as the first one, or they could not be grouped again.
        inputs = pad(rows, pad_id=pad_id, labels=self.processor.labels)
        return Batch(ids=tuple(map(str, range(len(examples)))), inputs=inputs, pairs=len(examples[0]))

    def _run(self, batches: Iterable[Batch]) -> Iterator[Predictions]:
        for batch in batches:
            batch = batch.to(self.device)
            bf16 = self.precision == "bf16"
            # A block and no decorator, which would leave a generator after its first batch.
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                part = self.task.predict(cast(VisionLanguageModel, self.model), batch)
            # Checked per batch, before hours are spent on a split that is of no use.
            if not part.finite:
                raise ConfigError(
                    f"scores in the batch of {part.ids[0]!r} are not finite numbers. Check that the weights "
                    "and the features of these images are finite."
                )
            yield part

    def _require_given(
        self, keys: Collection[str], images: Mapping[str, Any], regions: Collection[str]
    ) -> None:
        for need, given, argument in (("pixels", images, "image"), ("regions", regions, "regions")):
            if need in self.needs and len(given) < len(keys):
                raise ConfigError(
                    f"{type(self.model).__name__} reads {need}, but {len(keys) - len(given)} of {len(keys)} "
                    f"pairs have no {argument}; pass {argument}= for every pair."
                )


def _several(value: Any) -> tuple[Any, ...]:
    """One or several pictures or regions as a tuple; none for None."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _by_key(keys: Sequence[tuple[str, ...]], values: Sequence[Any] | None) -> dict[str, Any]:
    """The pictures or regions of every text under their keys."""
    both = zip(keys, values or (), strict=False)
    return {key: one for own, value in both for key, one in zip(own, _several(value), strict=False)}


def find_device(name: str) -> torch.device:
    """Return a device after allocating a tensor on it; `auto` uses a GPU if there is one.

    Raises:
        ConfigError: the device cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)  # some drivers fail only at the first allocation
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here: {reason}. Use cpu or auto.") from error
    return device


def load(
    folder: Path | str,
    *,
    device: str = "auto",
    precision: str = "32",
    trust: Collection[str] = (),
    pretrained: bool = False,
) -> Predictor:
    """Load a bundle, or the bundle in a run folder, for prediction.

    Args:
        trust: module prefixes of your own code that the bundle may call; see `diptych.bundle.load_bundle`.
        pretrained: see `Predictor`.

    Example:
        >>> import diptych
        >>> diptych.load("runs/concat").predict(image="meme.png", text="look at this")  # doctest: +SKIP
        Verdict(answer='benign', scores={'benign': 0.83, 'hateful': 0.17})
    """
    bundle = load_bundle(Path(folder), trust=trust)
    return Predictor(bundle, device=device, precision=precision, pretrained=pretrained)
