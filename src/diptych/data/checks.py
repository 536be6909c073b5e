"""Checks before the first step: that a model will get what it needs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych.data.processor import Processor, Sources
from diptych.data.stream import count_regions, key_windows
from diptych.errors import ConfigError, FormatError, MissingFeatures
from diptych.types import Dataset, Example, RegionSource, VisionLanguageModel


def require_sources(
    needs: frozenset[str],
    processor: Processor,
    sources: Sources,
    *examples: Dataset | Iterable[Example],
) -> None:
    """Check once, before the first step, that a model will get what it needs.

    Raises:
        ConfigError: the processor does not provide a modality, or its source is not given.
        MissingFeatures: images of `examples` without regions, unless the processor tolerates them.
        FormatError: picture files of `examples` that do not exist.
    """
    if lacking := sorted(needs - processor.provides):
        raise ConfigError(
            f"the model needs {sorted(needs)} but the processor provides {sorted(processor.provides)}; "
            f"give the processor what makes {lacking}."
        )
    if surplus := sorted(processor.provides - needs):
        raise ConfigError(
            f"the processor provides {surplus}, which the model does not take; it reads {sorted(needs)}. "
            "Leave that setting of the processor out, or take another model."
        )
    if processor.regions and sources.regions is None:
        raise ConfigError(
            "the model reads regions but no feature store is given; say features=FOLDER. "
            "`diptych import` makes one from a TSV."
        )
    if processor.tags and not (sources.regions and sources.regions.meta.classes):
        raise ConfigError("processor.tags needs a feature store that names its object classes.")
    pixels = "pixels" in processor.provides
    if pixels and sources.images is None:
        raise ConfigError("the model reads pixels but no picture files are given; say root=FOLDER.")
    if processor.regions and processor.missing == "error" and sources.regions is not None:
        _require_regions(_windows(examples), sources.regions)
    if pixels and sources.images is not None:
        _require_pictures(_windows(examples), sources.images)


def require_vocabulary(model: object, processor: Processor) -> None:
    """Every token id has a row in the model's word embedding; published models may have spare rows.

    Raises:
        ConfigError: the vocabulary is larger than the embedding.
    """
    embedding = model.word_embedding() if isinstance(model, VisionLanguageModel) else None
    if processor.text is not None and embedding is not None:
        tokens, rows = processor.text.vocab_size, embedding.num_embeddings
        if tokens > rows:
            raise ConfigError(
                f"the vocabulary has {tokens} tokens, but the model knows {rows}; use the vocabulary that it "
                "was trained with, or leave model.vocab_size out."
            )


def _windows(examples: Sequence[Dataset | Iterable[Example]]) -> Iterator[list[str]]:
    return (keys for some in examples for keys in key_windows(some))


def _require_regions(windows: Iterable[Sequence[str]], regions: RegionSource) -> None:
    missing = {
        key
        for keys in windows
        for key, count in zip(keys, count_regions(regions, keys).tolist(), strict=True)
        if count < 0
    }
    if missing:
        raise MissingFeatures(missing, getattr(regions, "path", "the feature store"))


def _require_pictures(windows: Iterable[Sequence[str]], images: Mapping[str, Any]) -> None:
    """Every picture that is given as a file is there; whether it can be read shows when it is read."""
    count, missing = 0, dict[str, None]()
    for keys in windows:
        files = [images[key] for key in keys if isinstance(images[key], str | Path)]
        count += len(files)
        missing.update({str(file): None for file in files if not Path(file).exists()})
    if missing:
        first = f"{', '.join(list(missing)[:5])}{', ...' if len(missing) > 5 else ''}"
        raise FormatError(
            f"{len(missing)} of {count} pictures are missing: {first}. Get these files, or list what "
            "else is wrong with `diptych check`."
        )
