"""Checks before the first step: the data and the processor fit the model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych.data.processor import Processor, Sources
from diptych.data.stream import count_regions, key_windows
from diptych.errors import ConfigError, FormatError, MissingFeatures, first_five
from diptych.images import picture_exists
from diptych.types import Dataset, Example, RegionSource, VisionLanguageModel


def require_sources(
    needs: frozenset[str],
    processor: Processor,
    sources: Sources,
    *examples: Dataset | Iterable[Example],
) -> None:
    """Check that the processor and the sources provide exactly the modalities that a model reads.

    Args:
        needs: modalities that the model reads, such as `text` and `regions`.
        examples: data sets whose images must all have regions and picture files.

    Raises:
        ConfigError: the processor lacks a modality or provides one too many, or a source is missing.
        MissingFeatures: images of `examples` have no regions, and `processor.missing` is `error`.
        FormatError: picture files of `examples` do not exist.
    """
    if lacking := sorted(needs - processor.provides):
        raise ConfigError(
            f"the model needs {sorted(needs)}, but the processor provides {sorted(processor.provides)}; "
            f"add the settings of the processor that provide {lacking}."
        )
    if surplus := sorted(processor.provides - needs):
        raise ConfigError(
            f"the processor provides {surplus}, but the model reads only {sorted(needs)}. "
            "Remove that setting of the processor, or choose another model."
        )
    if processor.regions and sources.regions is None:
        raise ConfigError(
            "the model reads regions, but no feature store is given; set features=FOLDER. "
            "`diptych import` makes a store from a TSV file."
        )
    if processor.tags and not (sources.regions and sources.regions.meta.classes):
        raise ConfigError(
            "processor.tags is set, but the feature store has no names of object classes; import the "
            "features with the names, or remove processor.tags."
        )
    # Settings first, files last: looking at all files of a large data set takes minutes.
    pixels = "pixels" in processor.provides
    if pixels and sources.images is None:
        raise ConfigError("the model reads pixels, but no picture files are given; set root=FOLDER.")
    if processor.regions and processor.missing == "error" and sources.regions is not None:
        _require_regions(_windows(examples), sources.regions)
    if pixels and sources.images is not None:
        _require_pictures(_windows(examples), sources.images)


def refuse_unread(processor: Processor, **given: object) -> None:
    """Refuse sources of regions that a model without regions would ignore without a word.

    Args:
        given: what a person has asked for, by the name of the setting; None and empty ones are not given.

    Raises:
        ConfigError: something is given, and the model reads no regions.
    """
    name = next((name for name, place in given.items() if place), None)
    if name is not None and not processor.regions:
        raise ConfigError(
            f"{name} is {given[name]}, but the model reads {' and '.join(sorted(processor.provides))} and no "
            "regions, so nothing would read it; remove it, or choose a model that reads regions."
        )


def require_vocabulary(model: object, processor: Processor) -> None:
    """Check that every token id has a row in the model's word embedding.

    Raises:
        ConfigError: the vocabulary is larger than the embedding.
    """
    embedding = model.word_embedding() if isinstance(model, VisionLanguageModel) else None
    if processor.text is not None and embedding is not None:
        tokens, rows = processor.text.vocab_size, embedding.num_embeddings
        if tokens > rows:  # fewer tokens are fine: published embeddings are padded with unused rows
            raise ConfigError(
                f"the vocabulary has {tokens} tokens, but the word embedding of the model has {rows} rows; "
                "use the vocabulary that the model was trained with, or remove model.vocab_size."
            )


def _windows(examples: Sequence[Dataset | Iterable[Example]]) -> Iterator[list[str]]:
    return (keys for dataset in examples for keys in key_windows(dataset))


def _require_regions(windows: Iterable[Sequence[str]], regions: RegionSource) -> None:
    missing = {
        key
        for keys in windows
        for key, count in zip(keys, count_regions(regions, keys).tolist(), strict=True)
        if count < 0  # `count_regions` gives -1 for an image that the source does not have
    }
    if missing:
        raise MissingFeatures(missing, getattr(regions, "path", "the feature store"))


def _require_pictures(windows: Iterable[Sequence[str]], images: Mapping[str, Any]) -> None:
    """Check that all picture files exist. Opening them all would take as long as an epoch."""
    count, missing = 0, dict[str, None]()
    for keys in windows:
        files = [images[key] for key in keys if isinstance(images[key], str | Path)]
        count += len(files)
        missing.update({str(file): None for file in files if not picture_exists(file)})
    if missing:
        raise FormatError(
            f"{len(missing)} of {count} pictures are missing: {first_five(missing)}. Add these files; "
            "`diptych check` lists all problems of the data."
        )
