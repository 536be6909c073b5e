"""What is explained: examples as a model reads them, or as all members of a study do."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from diptych.cli.data import chosen_data
from diptych.cli.extract import detector_settings
from diptych.errors import ConfigError, nearest

if TYPE_CHECKING:
    from diptych.data import Sources
    from diptych.explain import Budget, JointVariants, Varied
    from diptych.predict import Predictor
    from diptych.study import StudyBlend
    from diptych.types import Dataset, Example, RegionSource

Stores = tuple[Path | str | None, Path | str | None]  # the main and the second one


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A loaded model, and the examples as it takes them."""

    predictor: "Predictor"
    examples: "list[Example]"
    sources: "Sources"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model, or the members of a study, and the examples to explain.

    Args:
        readers: by member; of a single model, one without a name.
        blend: of a study.
        dataset: the split of the examples; None for a picture and a text.
    """

    readers: dict[str, Reader]
    blend: "StudyBlend | None"
    dataset: "Dataset | None"

    @property
    def first(self) -> Reader:
        return next(iter(self.readers.values()))

    @property
    def examples(self) -> "list[Example]":
        return self.first.examples

    def variants(self, number: int, budget: "Budget") -> "Varied":
        """The variants of one example."""
        from diptych.explain import JointVariants, Variants

        made: dict[str, Variants] = {
            name: Variants(one.predictor, one.examples[number], one.sources, budget)
            for name, one in self.readers.items()
        }
        return made[""] if self.blend is None else JointVariants(made, self.blend)

    def members(self, variants: "Varied", explained: str) -> dict[str, float]:
        """The probability that each member of a study gives to a class."""
        if self.blend is None:
            return {}
        joint: JointVariants = variants  # type: ignore[assignment]
        found = joint.of_members([joint.rows])
        return {name: float(one.column(explained)[0]) for name, one in found.items()}


@contextmanager
def subject(arguments: argparse.Namespace) -> Iterator[Subject]:
    """Yield what is explained; stores of regions that were found for it exist within the block.

    Raises:
        ConfigError: options that do not go together.
    """
    from diptych.predict import load
    from diptych.study import StudyBlend, is_study, places_of, read_tree

    run: Path = arguments.run
    how = {"device": arguments.device, "precision": arguments.precision}
    if not is_study(run):
        predictor = load(run, **how)
        with chosen(predictor, run, stores_of(arguments), arguments) as (examples, sources, dataset):
            reader = Reader(predictor=predictor, examples=examples, sources=sources)
            yield Subject(readers={"": reader}, blend=None, dataset=dataset)
        return
    if arguments.detector is not None or arguments.more_features is not None:
        raise ConfigError(
            "a study reads the stores of its members: make them with `diptych extract`, and add --features "
            "NAME=FOLDER for each, instead of --detector and --more-features."
        )
    tree, places = read_tree(run), places_of(run)
    for word in arguments.features:
        name, _, place = word.rpartition("=")
        if name not in places:
            raise ConfigError(
                f"{run} reads no features called {name!r}.{nearest(name, places)} "
                f"It reads: {', '.join(places) or 'none'}; write --features NAME=FOLDER."
            )
        places[name] = place
    readers, split = {}, None
    with ExitStack() as stack:
        for name, about in tree["members"].items():
            own = run / about["bundle"]
            main, more = (
                None if key is None else places[key] for key in (about["features"], about["more_features"])
            )
            predictor = load(own, **how)
            found = stack.enter_context(chosen(predictor, own, (main, more), arguments))
            readers[name] = Reader(predictor=predictor, examples=found[0], sources=found[1])
            split = found[2]
        yield Subject(readers=readers, blend=StudyBlend(run, tree), dataset=split)


def stores_of(arguments: argparse.Namespace) -> Stores:
    """The stores of a single model on the command line."""
    if len(arguments.features) > 1:
        raise ConfigError("--features is given more than once; a single model has one, and --more-features.")
    return next(iter(arguments.features), None), arguments.more_features


@contextmanager
def chosen(
    predictor: "Predictor", run: Path, stores: Stores, arguments: argparse.Namespace
) -> "Iterator[tuple[list[Example], Sources, Dataset | None]]":
    """Yield the examples, where their regions and pictures are while the block runs, and their split.

    Args:
        run: of the predictor.
        stores: used instead of those of its training.
    """
    if arguments.ids is not None or arguments.batch:
        yield _of_split(predictor, run, stores, arguments)
        return
    if arguments.text is None and predictor.processor.text is not None:
        raise ConfigError("the model reads a text; add --text, or --ids and --split.")
    if arguments.split is not None:
        raise ConfigError("--split has no --ids; add the ids of the examples to show.")
    from diptych.predict import Listed, regions_of_run

    pictures = _pictures(predictor, arguments.images)
    example = predictor.example(
        next(iter(pictures), "text"), keys=(*pictures,), text=arguments.text or "", text_b=arguments.text_b
    )
    with _detected(predictor, arguments, pictures) as found:
        store = found
        if store is None:
            store = regions_of_run(predictor, run, pictures, *stores)
        yield [example], predictor.sources(Listed([example]), features=store, images=pictures), None


def _pictures(predictor: "Predictor", images: list[Path]) -> dict[str, Path]:
    """The pictures by the keys of their regions."""
    from diptych.files import require_file

    reads = predictor.processor.regions or "pixels" in predictor.needs
    # A model of texts alone may be given one picture, which is then only shown.
    if len(images) != predictor.images and (reads or len(images) > 1):
        raise ConfigError(
            f"{type(predictor.model).__name__} takes {predictor.images} picture(s) with a text; got "
            f"{len(images)}."
        )
    # By file name without ending, as in the store of a detector.
    pictures = {image.stem: require_file(image, "a picture file") for image in images}
    if len(pictures) < len(images):
        raise ConfigError(f"both pictures are called {images[0].stem!r}, which is the key of their regions.")
    return pictures


@contextmanager
def _detected(
    predictor: "Predictor", arguments: argparse.Namespace, pictures: Mapping[str, Path]
) -> "Iterator[RegionSource | None]":
    """Yield the regions that --detector finds in the pictures; None without that option."""
    from diptych.data import refuse_unread
    from diptych.detect import extract
    from diptych.features import FeatureStore
    from diptych.predict import find_device

    refuse_unread(predictor.processor, detector=arguments.detector)
    if arguments.detector is None:
        if arguments.weights:
            raise ConfigError(
                f"--weights {arguments.weights[0]} needs --detector; add it, or remove the weights."
            )
        yield None
        return
    if arguments.features:
        raise ConfigError("--features and --detector exclude each other: a store, or regions found now.")
    (settings,) = detector_settings(arguments)
    known = predictor.bundle.features
    if known is not None and settings.detector != "grid":  # a grid knows no classes
        # Names of the classes are not in the weights of a detector; those of training are shown.
        settings = replace(
            settings,
            classes=settings.classes or known.classes,
            attributes=settings.attributes or known.attributes,
        )
    with TemporaryDirectory() as folder:
        listing = Path(folder) / "pictures.txt"
        # The file that `diptych extract` takes, so that regions are found exactly as there.
        listing.write_text("".join(f"{path.absolute()}\n" for path in pictures.values()), encoding="utf-8")
        report = extract(
            listing, Path(folder) / "stores", settings, device=str(find_device(arguments.device))
        )
        # Inside of the block: the folder is removed behind it.
        yield FeatureStore(report.stores[0].path)


def _of_split(
    predictor: "Predictor", run: Path, stores: Stores, arguments: argparse.Namespace
) -> "tuple[list[Example], Sources, Dataset]":
    from diptych.data.stream import ids_of
    from diptych.predict import regions_of_run, root_of_run

    if arguments.split is None or arguments.images or arguments.detector:
        raise ConfigError(
            "--ids and --batch take examples of a split: add --split, and neither pictures nor --detector."
        )
    root = root_of_run(run, arguments.root).absolute()
    about = predictor.bundle.provenance.get("data")
    data = chosen_data(arguments, root, about, f"the bundle in {run}")
    dataset = data.open(root, arguments.split)
    index = {name: number for number, name in enumerate(ids_of(dataset))}
    # In the order of the command line, each id once.
    wanted = index if arguments.batch else dict.fromkeys(arguments.ids.split(","))
    if missing := next((name for name in wanted if name not in index), None):
        raise ConfigError(
            f"{dataset.files[0]} has no example with the id {missing!r}.{nearest(missing, index)}"
        )
    store = regions_of_run(predictor, run, dataset, *stores)
    examples = [dataset[index[name]] for name in wanted]
    return examples, predictor.sources(dataset, features=store), dataset
