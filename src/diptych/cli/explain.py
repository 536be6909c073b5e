"""Explain a decision: what each word and each area of the picture adds to it, and what would change it.

Writes OUT, a page that needs no network. Of several examples, OUT is a list, with a page for each beside it.
With --attention it shows where a model looks instead: all layers and heads, also as PNG pictures. Regions of
a picture come from the store used in training or from --features, with the picture's file name without the
extension as key; or from --detector, with the settings of the training features. Several pictures (NLVR2)
are given in their order. With --ids, examples of a split are shown instead.

try:
  diptych explain runs/uniter_tiny/seed1 memes/img/00001.png --text "what a day" --out why.html
  diptych explain runs/uniter_tiny/seed1 --ids 3,7 --split dev_seen --json why.json
  diptych explain runs/uniter_tiny/seed1 --batch --split dev_seen --out why/index.html
  diptych explain runs/uniter_tiny/seed1 --attention memes/img/00001.png --text "what a day"
  diptych explain runs/uniter_tiny/seed1 --attention --ids 3,7 --split dev_seen --out two.html
  diptych explain bundles/vlbert --attention new.png --text "a dog" --detector vgattr --weights ATTR.pkl
  diptych explain runs/text --attention --text "what a day" --maps arrays
"""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from diptych.cli.data import chosen_data
from diptych.cli.extract import add_detector, detector_settings
from diptych.cli.options import add_data, add_device, add_out, add_overwrite, add_policy, add_root
from diptych.cli.policy import decided
from diptych.errors import ConfigError, nearest

if TYPE_CHECKING:
    from diptych.calibrate import Policy
    from diptych.data import Sources
    from diptych.explain import Evidence
    from diptych.memory import Memory, Recall
    from diptych.predict import Predictor
    from diptych.types import Dataset, Example, RegionSource


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=Path, help="a run folder or a bundle; with --attention also a pre-trained one")
    add("images", type=Path, nargs="*", metavar="picture", help="a picture; of NLVR2, two")
    add("--attention", action="store_true", help="show the attention maps instead")
    add("--text", help="the text of the picture")
    add("--text-b", help="a second text, such as an answer or a translation")
    add("--ids", help="show these examples of --split instead: ids, comma-separated")
    add("--batch", action="store_true", help="explain all examples of --split")
    add("--split", help="the split of --ids and --batch, and of other pictures and texts to try")
    add_root(parser, "of --ids (default: the one trained on)")
    add_data(parser)
    add_out(parser, "the page (default: why.html, attention.html)")
    add("--json", type=Path, metavar="FILE", help="also write the explanation as JSON, a list")
    add("--permutations", type=int, default=10, help="orders of words and areas (default: 10)")
    add("--groups", type=int, default=16, help="largest number of areas of a picture (default: 16)")
    add("--seed", type=int, default=0, help="of the orders (default: 0)")
    add("--maps", type=Path, metavar="FOLDER", help="also write all maps as .npy, with names.json")
    add("--layer", type=int, help="layer in detail, from 1 (default: where text and picture look most)")
    add("--head", type=int, help="head in detail, from 1")
    add("--features", type=Path, help="feature store or boxes.jsonl (default: as trained)")
    add("--more-features", type=Path, help="the second store of a model that merges two")
    add_detector(parser, default=None)
    add_overwrite(parser, "replace the page, its pictures and the maps")
    add("--memory", type=Path, help="also show which cases vote, from a folder of `diptych memory`")
    add_policy(parser)
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    if not arguments.attention:
        return _evidence(arguments)
    from diptych.explain import explain_attention, export_maps
    from diptych.files import require_new
    from diptych.predict import load
    from diptych.report import attention_page
    from diptych.report.attention import picture_places

    arguments.out = arguments.out or Path("attention.html")
    # Attention needs no task, so a pre-trained model will do.
    predictor = load(arguments.run, device=arguments.device, precision=arguments.precision, pretrained=True)
    with _chosen(predictor, arguments) as (examples, sources, _):
        # The outputs are checked before the work, and the inputs are kept from being replaced.
        keep = {"overwrite": arguments.overwrite, "inputs": arguments.images}
        require_new(arguments.out, kind="a page of diptych", **keep)
        for place in picture_places(arguments.out, sum(len(example.pairs) for example in examples)):
            require_new(place, kind="a PNG picture", **keep)
        maps = [explain_attention(predictor, example, sources) for example in examples]
    if arguments.maps is not None:
        export_maps(maps, arguments.maps, overwrite=arguments.overwrite)
    name = str(predictor.bundle.provenance.get("name") or arguments.run.name)
    title = f"Attention of {name}"
    page, *pictures = attention_page(
        maps, arguments.out, title=title, layer=arguments.layer, head=arguments.head
    )
    for example in maps:
        heads = sum(len(layer.weights) for layer in example.pairs[0].layers)
        places = ", ".join(str(len(pair.places)) for pair in example.pairs)
        answer = f", answer: {example.answer}" if example.answer else ""
        print(
            f"{example.id}: {len(example.pairs[0].layers)} layers, {heads} heads, {places} positions{answer}"
        )
    print(f"wrote {page} and {', '.join(place.name for place in pictures)}")
    return 0


def _evidence(arguments: argparse.Namespace) -> int:
    from diptych.explain import Budget, Variants, evidence_of, smallest_change, swaps
    from diptych.files import require_new
    from diptych.predict import load

    # Options of the other page would be ignored without a word.
    if arguments.maps is not None or arguments.layer is not None or arguments.head is not None:
        raise ConfigError("--maps, --layer and --head are for --attention; add it.")
    budget = Budget(permutations=arguments.permutations, groups=arguments.groups, seed=arguments.seed)
    policy = None
    if arguments.policy is not None:
        from diptych.calibrate import Policy
        from diptych.study import model_of

        policy = Policy.load(arguments.policy)
        # Before the model is loaded: thresholds of one model mean nothing for another.
        policy.require_model(model_of(arguments.run))
    memory = None
    if arguments.memory is not None:
        from diptych.memory import Memory
        from diptych.predict import bundle_checksum

        memory = Memory.load(arguments.memory)
        memory.require_model(bundle_checksum(arguments.run), where=arguments.memory)
    predictor = load(arguments.run, device=arguments.device, precision=arguments.precision)
    with _chosen(predictor, arguments) as (examples, sources, dataset):
        arguments.out = arguments.out or Path("why.html")
        pages = _pages(arguments.out, len(examples))
        keep = {"overwrite": arguments.overwrite, "inputs": arguments.images}
        # Of one example both are the same file.
        for page in dict.fromkeys([arguments.out, *pages]):
            require_new(page, kind="a page of diptych", **keep)
        if arguments.json is not None:
            require_new(arguments.json, kind="a page of diptych", **keep)
        recalls = None if memory is None else _recalls(predictor, memory, examples, sources)
        found = []
        for example in examples:
            variants = Variants(predictor, example, sources, budget)
            why = evidence_of(variants)
            # The fewest hidden parts first, then what other pictures and texts would do.
            least = smallest_change(variants, why)
            tried = [] if dataset is None else swaps(variants, dataset)
            found.append(replace(why, changes=(*([] if least is None else [least]), *tried)))
    _write(arguments, predictor, found, examples, pages, policy, recalls or [None] * len(found))
    return 0


def _recalls(
    predictor: "Predictor", memory: "Memory", examples: "list[Example]", sources: "Sources"
) -> "list[Recall | None]":
    """What the memory says to each example."""
    from diptych.memory import ask, recall_all
    from diptych.predict import Listed

    asked = ask(predictor, Listed(examples), memory.parts, features=sources.regions, images=sources.images)
    return [*recall_all(memory, asked.vectors, asked.scores)]


def _pages(out: Path, count: int) -> list[Path]:
    """The page of each example: OUT itself, or numbered ones beside it."""
    return [out] if count == 1 else [out.with_name(f"{out.stem}-{n}.html") for n in range(1, count + 1)]


def _write(
    arguments: argparse.Namespace,
    predictor: "Predictor",
    found: "list[Evidence]",
    examples: "list[Example]",
    pages: list[Path],
    policy: "Policy | None",
    recalls: "list[Recall | None]",
) -> None:
    import json

    from diptych import __version__
    from diptych.explain import explanation, probability
    from diptych.files import atomic_file
    from diptych.report import evidence_page, in_short, index_page

    about = predictor.bundle.provenance
    name = str(about.get("name") or arguments.run.name)
    facts = {"model": name, "family": type(predictor.model).__name__, "diptych": __version__}
    facts |= {"seed": str(about["seed"])} if "seed" in about else {}
    # By their content: the name of a run does not change when it is trained again.
    facts["weights"] = f"sha256 {_checksum(arguments.run)}"
    for why, example, page, recall in zip(found, examples, pages, recalls, strict=True):
        # Soft and several labels are no single truth to compare an answer with.
        truth = example.target if isinstance(example.target, str) else None
        line = None if policy is None else decided(policy, why.scores)["line"]
        evidence_page(why, page, title=name, facts=facts, truth=truth, policy=line, recall=recall)
        print(f"{why.id}: {why.answer} ({why.explained} {probability(why.both):.2f}). {in_short(why)}")
    if len(found) > 1:
        index_page(found, arguments.out, pages=pages, title=name)
    if arguments.json is not None:
        with atomic_file(arguments.json, "w", encoding="utf-8") as file:
            # NaN is no JSON: better an error here than in the reader.
            documents = [
                explanation(why, model=facts, memory=None if recall is None else recall.as_dict())
                for why, recall in zip(found, recalls, strict=True)
            ]
            file.write(f"{json.dumps(documents, indent=1, allow_nan=False)}\n")
    print(f"wrote {arguments.out}" + (f" and {len(pages)} pages" if len(pages) > 1 else ""))


def _checksum(run: Path) -> str:
    """Digest of the weights, by which a reader can tell that two pages are of one model."""
    import hashlib

    from diptych.bundle import find_bundle

    with (find_bundle(run) / "weights.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _chosen(
    predictor: "Predictor", arguments: argparse.Namespace
) -> "Iterator[tuple[list[Example], Sources, Dataset | None]]":
    """Yield the examples, where their regions and pictures are while the block runs, and their split."""
    if arguments.ids is not None or arguments.batch:
        yield _of_split(predictor, arguments)
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
        if store is None and predictor.processor.regions:
            store = regions_of_run(
                predictor, arguments.run, pictures, arguments.features, arguments.more_features
            )
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
    from diptych.detect import extract
    from diptych.features import FeatureStore
    from diptych.predict import find_device

    if arguments.detector is None or not predictor.processor.regions:
        yield None
        return
    if arguments.features is not None:
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
    predictor: "Predictor", arguments: argparse.Namespace
) -> "tuple[list[Example], Sources, Dataset]":
    from diptych.data.stream import ids_of
    from diptych.predict import regions_of_run, root_of_run

    if arguments.split is None or arguments.images or arguments.detector:
        raise ConfigError(
            "--ids and --batch take examples of a split: add --split, and neither pictures nor --detector."
        )
    root = root_of_run(arguments.run, arguments.root).absolute()
    about = predictor.bundle.provenance.get("data")
    data = chosen_data(arguments, root, about, f"the bundle in {arguments.run}")
    dataset = data.open(root, arguments.split)
    index = {name: number for number, name in enumerate(ids_of(dataset))}
    # In the order of the command line, each id once.
    wanted = index if arguments.batch else dict.fromkeys(arguments.ids.split(","))
    if missing := next((name for name in wanted if name not in index), None):
        raise ConfigError(
            f"{dataset.files[0]} has no example with the id {missing!r}.{nearest(missing, index)}"
        )
    store = regions_of_run(predictor, arguments.run, dataset, arguments.features, arguments.more_features)
    examples = [dataset[index[name]] for name in wanted]
    return examples, predictor.sources(dataset, features=store), dataset
