"""Embed pictures and texts once; heads, searches and memories then work on the vectors.

The store OUT has one row per item: the vectors of both towers and of the joint space of a dual encoder (CLIP,
SigLIP), or the pooled vector of any other model. It records the model by name and checksum. SOURCE is the
folder of a data set, a folder of pictures (or a .txt file that lists them), or a .tsv file of keys and texts.

try:
  diptych embed memes memes/clip --model clip_l14
  diptych embed memes/img memes/clip --model clip_l14 --text memes/texts.tsv
  diptych embed memes memes/llm --from vectors.parquet --name Qwen2-VL-7B
  diptych embed emoji german --model towers --pictures english --data emoji --set lang=de
  diptych train experiment=hateful_memes/rgcl model=embeddings root=memes features=memes/clip
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.cli.data import chosen_data
from diptych.cli.options import add_batch_size, add_data, add_device, add_overwrite
from diptych.cli.output import progress
from diptych.errors import ConfigError, FormatError, MissingFeatures

if TYPE_CHECKING:
    from jaxtyping import Float
    from numpy import ndarray

    from diptych.datasets import Split
    from diptych.types import Example

FOREIGN = "transformers:"


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, help="a data set, a folder of pictures, or a .tsv file of keys and texts")
    add("out", type=Path, help="folder of the new store")
    add("--model", help="a run, a bundle of `diptych convert`, or transformers:FOLDER")
    add("--from", dest="given", type=Path, metavar="FILE", help="your own vectors, .npy or .parquet, instead")
    add("--name", help="name of the model in the store (default: that of the model or the file)")
    add("--parts", help="comma-separated: joint_image, tower_text, pooled, task, ... (default: all but task)")
    add(
        "--pictures",
        type=Path,
        metavar="STORE",
        help="take the pictures' vectors from a store of the same model",
    )
    add("--text", type=Path, metavar="FILE", help="texts of the pictures: a .tsv file of keys and texts")
    add("--splits", help="comma-separated splits of the data set (default: all)")
    add_data(parser)
    add(
        "--dtype",
        choices=("float16", "float32"),
        default="float32",
        help="type of numbers (default: float32)",
    )
    add_device(parser)
    add_batch_size(parser)
    add("--workers", type=int, default=0, help="loader processes (default: 0)")
    add_overwrite(parser, "replace a store that exists")


def run(arguments: argparse.Namespace) -> int:
    from diptych.features.vectors import write_vectors
    from diptych.features.writer import require_replaceable
    from diptych.predict import described, side_by_side

    # Both or neither.
    if (arguments.model is None) == (arguments.given is None):
        raise ConfigError("give either --model or --from: what makes the vectors, or who made them.")
    require_replaceable(arguments.out, overwrite=arguments.overwrite)  # before hours of work
    groups = [*_groups(arguments)]
    if arguments.given is not None:
        name, checksum, vectors = _own(arguments, groups)
    elif arguments.model.startswith(FOREIGN):
        name, checksum, vectors = _foreign(arguments, groups)
    else:
        name, checksum, vectors = _computed(arguments, groups)
    widths = {part: rows.shape[1] for part, rows in vectors.items()}
    meta = described(arguments.name or name, checksum, widths, dtype=arguments.dtype)
    keys = [key for group in groups for key in group.keys]
    # All parts of an item are one row of the store.
    both = zip(keys, side_by_side(vectors), strict=True)
    count = write_vectors(arguments.out, both, meta, overwrite=arguments.overwrite)
    print(f"wrote {arguments.out}: {count:,} items, {', '.join(meta.parts)} of {meta.detector}")
    # Pictures and texts alone have nothing to learn from.
    if groups and groups[0].data:
        chosen = experiment_for(groups[0].data, set(widths), arguments.set)
        print(f"next: diptych train experiment={chosen} root={arguments.source} features={arguments.out}")
    return 0


def experiment_for(data: str, parts: set[str], settings: Sequence[str]) -> str:
    """The experiment, with its settings, that trains on stored vectors of a data set."""
    from diptych import conf

    if f"{data}/retrieval" in conf.names("experiment"):
        # Of the settings of --set, the language is one of a run, too.
        words = [f"data={data}"] * (data != "emoji") + [one for one in settings if one.startswith("lang=")]
        return " ".join(["emoji/retrieval", *words])
    if data != "hateful_memes":
        return f"hateful_memes/clip_mlp model=embeddings data={data}"
    if {"tower_image", "tower_text"} <= parts:
        return "hateful_memes/hateclipper model=embeddings"
    return "hateful_memes/rgcl model=embeddings task.fusion=pooled"


class Group:
    """Items that are embedded together.

    Args:
        examples: one per item; their pictures have the item's key.
        images: picture files by key; None for texts alone.
        data: name of the data set that they come from; empty if from none.
    """

    def __init__(
        self,
        examples: "Sequence[Example]",
        images: Mapping[str, Any] | None,
        *,
        texts: bool,
        data: str = "",
    ) -> None:
        self.examples, self.images, self.texts, self.data = examples, images, texts, data
        self.keys = [example.id for example in examples]


def _groups(arguments: argparse.Namespace) -> Iterator[Group]:
    from diptych.detect.listing import SUFFIXES, list_pictures
    from diptych.types import Example, Pair

    source: Path = arguments.source
    texts = {} if arguments.text is None else _texts(arguments.text)
    if source.suffix == ".tsv":
        pairs = [Pair(image=None, text=text) for text in _texts(source).values()]
        named = zip(_texts(source), pairs, strict=True)
        yield Group([Example(id=key, pairs=(pair,)) for key, pair in named], None, texts=True)
        return
    # --data says that a folder with pictures is the root of a data set all the same.
    plain = source.suffix == ".txt" or any(one.suffix.lower() in SUFFIXES for one in _files(source))
    if plain and arguments.data is None:
        pictures = list_pictures(source)
        if lacking := [one.key for one in pictures if texts and one.key not in texts]:
            raise FormatError(
                f"{arguments.text}: has no text of {lacking[0]!r} and {len(lacking) - 1} others."
            )
        examples = [Example(id=key, pairs=(Pair(image=key, text=texts.get(key, "")),)) for key, _ in pictures]
        yield Group(examples, {one.key: one.path for one in pictures}, texts=bool(texts))
        return
    if texts:
        raise ConfigError("--text is for a folder of pictures; a data set has texts of its own.")
    data = chosen_data(arguments, source)
    splits = arguments.splits.split(",") if arguments.splits else data.splits(source)
    seen: dict[str, str] = {}
    name = arguments.data or data.kind.name
    for split in splits:
        opened = data.open(source, split)
        yield Group([*_new(opened, seen)], opened.images, texts=True, data=name)


def _files(folder: Path) -> "list[Path]":
    return [one for one in folder.iterdir() if one.is_file()] if folder.is_dir() else []


def _new(split: "Split", seen: dict[str, str]) -> "Iterator[Example]":
    """The items of a split that no earlier one had; an item is a picture with its text."""
    from dataclasses import replace

    for example in split:
        key, text = example.pairs[0].image, example.pairs[0].text
        # A store looks vectors up by picture, so a second text would replace the first one's.
        if len(example.pairs) != 1 or not isinstance(key, str) or seen.get(key, text) != text:
            raise ConfigError(
                f"example {example.id} of {split.split} has {len(example.pairs)} pair(s) with the pictures "
                f"{key!r}, or its picture has several texts; a store holds one picture and one text per item."
            )
        if key not in seen:
            seen[key] = text
            yield replace(example, id=key)


def _texts(path: Path) -> dict[str, str]:
    """Texts by key, from lines of a key, a tab and a text."""
    from diptych.files import require_file

    try:
        # split() and not splitlines(): a text may hold other separators of lines.
        lines = require_file(path, "keys and texts").read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 (byte {error.start}); expected lines KEY<TAB>TEXT.") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        key, tab, text = line.rstrip("\r").partition("\t")
        # Empty lines are skipped, as the one behind the last line feed.
        if line.strip() and (not tab or key in found):
            raise FormatError(f"{path}:{number}: got {line[:60]!r}; expected KEY<TAB>TEXT, each key once.")
        if line.strip():
            found[key] = text
    if not found:
        raise FormatError(f"{path}: has no texts; expected lines KEY<TAB>TEXT.")
    return found


Found = tuple[str, str, "dict[str, Float[ndarray, 'N _']]"]


def _computed(arguments: argparse.Namespace, groups: Sequence[Group]) -> Found:
    import numpy as np

    from diptych.predict import (
        Listed,
        bundle_checksum,
        embed_dataset,
        embed_texts,
        load,
        own_parts,
    )

    folder = _model(arguments.model)
    predictor = load(folder, device=arguments.device, precision=arguments.precision, pretrained=True)
    if arguments.parts:
        parts = arguments.parts.split(",")
    else:
        # What a task has learned to compare belongs to that task; it must be asked for.
        parts = [part for part in own_parts(predictor) if part != "task"]
        # A side that no item has would only hold what the model makes of nothing.
        parts = [part for part in parts if not part.endswith("_text") or groups[0].texts]
        parts = [part for part in parts if not part.endswith("_image") or groups[0].images is not None]
    found = []
    checksum = bundle_checksum(folder)
    name = str(predictor.bundle.provenance.get("name") or folder.resolve().name)
    # The parts of the pictures do not depend on the texts, as of another language, and cost the most.
    kept = _kept(arguments.pictures, f"{arguments.name or name} {checksum[:16]}", parts, groups)
    wanted, parts = parts, [part for part in parts if part not in kept]
    for group in groups:
        if group.images is None:
            texts = [example.pairs[0].text for example in group.examples]
            found.append(embed_texts(predictor, texts, parts, batch_size=arguments.batch_size))
        elif group.examples:
            with progress(f"embedding {len(group.examples):,} items") as advance:
                vectors = embed_dataset(
                    predictor,
                    Listed(group.examples),
                    parts,
                    images=group.images,
                    batch_size=arguments.batch_size,
                    workers=arguments.workers,
                    progress=advance,
                )
            found.append(vectors)
    whole = {part: np.concatenate([one[part] for one in found]) for part in parts} | kept
    return name, checksum, {part: whole[part] for part in wanted}


def _kept(
    path: Path | None, model: str, parts: Sequence[str], groups: Sequence[Group]
) -> "dict[str, Float[ndarray, 'N _']]":
    """The vectors of the pictures from an earlier store of the same model."""
    import numpy as np

    from diptych.features import FeatureStore

    if path is None:
        return {}
    store = FeatureStore(path)
    if store.meta.detector != model:
        raise ConfigError(
            f"--pictures {path} has vectors of {store.meta.detector}, and --model is {model}; vectors of "
            "different models cannot be mixed."
        )
    widths = {part: int(width) for part, width in (one.rsplit(":", 1) for one in store.meta.parts)}
    wanted = [part for part in parts if part.endswith("_image")]
    if not wanted or not set(wanted) <= set(widths):
        raise ConfigError(
            f"--pictures {path} has the parts {', '.join(widths)}; expected vectors of pictures, such as "
            f"{', '.join(wanted) or 'joint_image'}, that --parts asks for."
        )
    keys = [key for group in groups for key in group.keys]
    if missing := {key for key in keys if key not in store}:
        raise MissingFeatures(missing, path)
    rows = np.concatenate([store[key].features for key in keys])
    ends = np.cumsum([0, *widths.values()])
    places = {part: slice(ends[number], ends[number + 1]) for number, part in enumerate(widths)}
    return {part: rows[:, places[part]].astype(np.float32) for part in wanted}


def _model(name: str) -> Path:
    from diptych import models

    folder = Path(name)
    # The name of an architecture is what `diptych train` takes, so it is a likely slip.
    if not folder.exists() and hasattr(models, name):
        raise ConfigError(
            f"--model {name} is an architecture without weights, and no folder; make one of published "
            f"weights: diptych convert hub:OWNER/NAME {name}."
        )
    return folder


def _own(arguments: argparse.Namespace, groups: list[Group]) -> Found:
    import numpy as np

    from diptych.data.inputs import file_checksum
    from diptych.features.vectors import read_vectors

    wanted = [key for group in groups for key in group.keys]
    path: Path = arguments.given
    keys, vectors = read_vectors(path, wanted)
    places = {key: number for number, key in enumerate(keys)}
    # Keys such as `00042` are often numbers in other people's tables, which lose their zeros.
    ids = [places.get(key, places.get(key.lstrip("0"), -1)) for key in wanted]
    if lacking := [key for key, place in zip(wanted, ids, strict=True) if place < 0]:
        raise FormatError(f"{path}: has no vector of {lacking[0]!r} and {len(lacking) - 1} other items.")
    # One NaN would spread over everything that is compared with it.
    if not np.isfinite(vectors).all():
        raise FormatError(f"{path}: has numbers that are not finite.")
    return path.stem, file_checksum(path), {"pooled": vectors[ids]}


def _foreign(arguments: argparse.Namespace, groups: Sequence[Group]) -> Found:
    from diptych.detect.vectors import foreign_vectors
    from diptych.predict import find_device

    folder = Path(arguments.model.removeprefix(FOREIGN))
    if not folder.is_dir():
        raise ConfigError(f"--model {arguments.model}: {folder} is no folder; download the model first.")
    items = [
        (example.pairs[0].text, None if group.images is None else group.images[example.id])
        for group in groups
        for example in group.examples
    ]
    texts, device = groups[0].texts, find_device(arguments.device)
    return foreign_vectors(folder, items, texts=texts, device=device, batch_size=arguments.batch_size)
