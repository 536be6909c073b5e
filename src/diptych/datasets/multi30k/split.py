"""Multi30k as a data set (Elliott et al., 2016, https://aclanthology.org/W16-3210).

Official files of multi30k/dataset:

    data/task1/raw/SPLIT.LANG.gz          one sentence per line; en, de, fr, and for most splits cs
    data/task1/tok/SPLIT.lc.norm.tok.LANG the same, lower-cased, normalized and tokenized by Moses
    data/task1/image_splits/SPLIT.txt     one picture per line
    data/task2/...                        five independent descriptions in en and de

or all files in one folder: `SPLIT.LANG` and `SPLIT.images`. Packed and plain files are both read. Splits
without these files are read from MM-BERT's `train_frcnn.json` and its like; see `datasets.caption_lines`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diptych.datasets.base import Split, require_split
from diptych.datasets.caption_lines import read_columns
from diptych.datasets.captions import read_matches, write_matches
from diptych.datasets.multi30k.files import (
    DESCRIPTIONS,
    SPLITS,
    Caption,
    Layout,
    stems,
)
from diptych.datasets.multi30k.official import (
    read_translations,
    write_translations,
)
from diptych.datasets.photographs import Photographs, image_key, image_name, require_kind
from diptych.datasets.sentences import languages, numbered, read_aligned, read_lines, require_split_of
from diptych.errors import ConfigError, FormatError, nearest
from diptych.predictions import Predictions
from diptych.types import Example, Pair, Progress

FORMS = ("captions", "translation", "translation_retrieval")
IMAGES = "images"
LINES = ("lines", 0)  # MM-BERT's file, which holds all languages and the pictures


class Multi30k(Split):
    """The sentences of one split, language after language, in file order.

    Ids are `SPLIT/LINE/LANG`, `SPLIT/LINE/LANG.NUMBER` in task 2 and `SPLIT/LINE/SOURCE-LANG` of
    translations. Lines are counted from 1.

    Args:
        task: `captions`: a picture and a true caption. `translation`: a sentence in the source language, with
            its translation as target and as the text of a decoder. `translation_retrieval`: both sentences in
            one pair.
        lang: language of the captions or of the translations; several as a list or joined by commas.
        source: language that is translated.
        descriptions: 5 reads the five descriptions of task 2; only for captions, because those of different
            languages are no translations of each other.
        tokenized: read lower-cased and tokenized files.
        image: False leaves the pictures out.
        image_key: key of a picture in the feature store; see `photographs.image_key`.

    Raises:
        ConfigError: a language, a split or a file is missing.
        FormatError: a line is empty, or the files of a split have different numbers of lines.
    """

    name = "multi30k"
    noun = "sentence"
    written = MappingProxyType({"task": "translation"})
    measure = "accuracy"

    def __init__(
        self,
        root: Path | str,
        split: str,
        *,
        task: str = "captions",
        lang: str | Sequence[str] = "de",
        source: str = "en",
        descriptions: int = 1,
        tokenized: bool = False,
        image: bool = True,
        image_key: str = "stem",
        limit: int | None = None,
    ) -> None:
        if task not in FORMS:
            raise ConfigError(f"data.task is {task!r}; expected one of {FORMS}.{nearest(task, FORMS)}")
        langs = languages(lang)
        if descriptions not in (1, DESCRIPTIONS) or (descriptions > 1 and task != "captions"):
            raise ConfigError(
                f"data.descriptions is {descriptions} and data.task {task}; expected 1, or for captions "
                f"{DESCRIPTIONS}."
            )
        # The pair would be a sentence and itself.
        if task != "captions" and source in langs:
            raise ConfigError(f"source and lang are both {source!r}; expected two languages to translate.")
        self.settings = {
            "task": task,
            "lang": ",".join(langs),
            "source": source,
            "descriptions": descriptions,
            "tokenized": tokenized,
            "image": image,
            "image_key": require_kind(image_key),
        }
        # Translations are lines; scores and rankings need ids.
        self.suffix = ".txt" if task == "translation" else ".json"
        super().__init__(root, split, limit=limit)

    @classmethod
    def splits(cls, root: Path, **settings: Any) -> tuple[str, ...]:
        layout = _layout(root, settings)
        # One language is enough; which of them are asked for shows when the split is opened.
        return tuple(split for split in SPLITS if layout.languages(split))

    @classmethod
    def recognizes(cls, root: Path) -> bool:
        # Sentences alone could be any parallel corpus.
        layout = _layout(root, {})
        return any(layout.images(split) or layout.lines(split) for split in cls.splits(root))

    @classmethod
    def find_files(cls, root: Path, split: str, **settings: Any) -> tuple[Path, ...]:
        splits = cls.splits(root, **settings)
        # Experiments read task 2, which a folder of translations alone does not have.
        if not splits and settings.get("descriptions", 1) > 1 and cls.splits(root):
            raise ConfigError(
                f"{root} has no file of task 2, such as data/task2/raw/{split}.1.de.gz, which "
                f"data.descriptions={DESCRIPTIONS} reads; set data.descriptions=1 to read task 1."
            )
        require_split(split, root, splits)
        return tuple(cls._files(root, split, settings).values())

    @classmethod
    def _files(cls, root: Path, split: str, settings: Mapping[str, Any]) -> dict[Caption, Path]:
        layout, langs = _layout(root, settings), languages(settings.get("lang", "de"))
        if (path := layout.lines(split)) is not None:
            return {LINES: path}
        if settings.get("task", "captions") != "captions":
            langs = (settings.get("source", "en"), *langs)
        # The source first: its file is then read once for all target languages.
        files = {key: path for lang in langs for key, path in layout.captions(split, lang).items()}
        if settings.get("image", True):
            images = layout.images(split)
            if images is None:
                raise ConfigError(
                    f"{root} has no list of the images of split {split!r}; expected {split}.txt or "
                    f"{split}.images. Set image=false to do without pictures."
                )
            # Last, which `files[-1]` relies on.
            files[IMAGES, 0] = images
        return files

    def read(self) -> Iterable[Example]:
        return self._read(self.settings["task"], languages(self.settings["lang"]))

    def _read(self, task: str, langs: Sequence[str]) -> Iterator[Example]:
        source = self.settings["source"]
        texts = self._texts(langs if task == "captions" else (source, *langs))
        for lang, number in (name.split(".") for name in texts):
            if lang not in langs:
                continue
            tail = f"{lang}.{number}" if number != "0" else lang
            # All files are read once, and walked through for each language.
            for line, row in numbered(texts):
                image, text = self._key(row, line), row[f"{lang}.{number}"]
                name = f"{self.split}/{line}/"
                if task == "captions":
                    yield Example(id=name + tail, pairs=(Pair(image=image, text=text),), target=1)
                    continue
                given, name = row[f"{source}.0"], f"{name}{source}-{lang}"
                if task == "translation":
                    pair = Pair(image=image, text=given, more_texts=(text,))
                    yield Example(id=name, pairs=(pair,), target=text)
                else:
                    yield Example(id=name, pairs=(Pair(image=image, text=given, text_b=text),), target=1)

    def _texts(self, langs: Sequence[str]) -> dict[str, list[str]]:
        """Sentences by `LANG.NUMBER`, and the list of the images, line by line."""
        paths = self._files(self.root, self.split, self.settings)
        if LINES not in paths:
            return read_aligned({f"{lang}.{number}": path for (lang, number), path in paths.items()})
        wanted = {f"{lang}.0": f"caption_{lang}" for lang in langs}
        if self.settings["image"]:
            wanted[f"{IMAGES}.0"] = "image"
        columns = read_columns(paths[LINES], wanted.values())
        return {name: columns[field] for name, field in wanted.items()}

    def _key(self, row: Mapping[str, str], line: int) -> str | None:
        if not self.settings["image"]:
            return None
        where = f"{self.files[-1]}:{line}"
        return image_key(image_name(row[f"{IMAGES}.0"]), self.settings["image_key"], where=where)

    @cached_property
    def _photographs(self) -> Photographs:
        path, kind = self.files[-1], self.settings["image_key"]
        lines = self._texts(())[f"{IMAGES}.0"] if path.suffix == ".json" else read_lines(path)
        return Photographs(self.root, lines, kind, where=str(path), folder=path.parent)

    def image_path(self, key: str) -> Path:
        return self._photographs.path(key)

    def write(self, predictions: Predictions, path: Path) -> None:
        """Write translations as one line per sentence, else the scores and rankings as JSON.

        Raises:
            FormatError: a sentence has no prediction, or the predictions are of another kind.
        """
        predictions = predictions.unique().align(self.ids)
        if self.settings["task"] != "translation":
            write_matches(predictions, path)
            return
        # Only the format of the shared task names pictures; a corpus of texts has no list of them.
        images = self._image_lines if path.suffix == ".tsv" else ()
        write_translations(predictions, path, images=images)

    def read_predictions(self, path: Path) -> Predictions:
        """Read a file of `write`, or translations of another program.

        Raises:
            FormatError: the file has another number of lines than the split, or names another split or, as
                TSV, other images.
        """
        if self.settings["task"] != "translation":
            return read_matches(path, self.ids)
        known = path.suffix == ".tsv" and _layout(self.root, self.settings).images(self.split) is not None
        images = self._image_lines if known else ()
        found = read_translations(path, self.ids, where=f"split {self.split!r}", images=images)
        require_split_of(path, self.split, {name: split for split in SPLITS for name in stems(split)})
        return found

    @property
    def _image_lines(self) -> Sequence[str]:
        """Lines of the image list, one per sentence of one language."""
        images = _layout(self.root, self.settings).images(self.split)
        if images is None:
            raise FormatError(f"{self.root} has no list of the images of split {self.split!r}.")
        # The first language's examples are the lines of the list, in order; `limit` may have cut them.
        return read_lines(images)[: len(self)]

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        from diptych.datasets.multi30k.world import write_world

        return write_world(folder, size=size, seed=seed, progress=progress)


def _layout(root: Path, settings: Mapping[str, Any]) -> Layout:
    return Layout(
        root=root,
        descriptions=settings.get("descriptions", 1),
        tokenized=settings.get("tokenized", False),
    )
