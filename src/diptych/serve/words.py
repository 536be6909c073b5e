"""Words of pictures: engines of OCR, each of which reads one picture at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue

from PIL import Image

from diptych.detect.ocr import Chosen, TextReader, arranged, words
from diptych.detect.rapid import RapidReader
from diptych.errors import ConfigError


class PictureWords:
    """The `Words` of a service.

    Args:
        readers: equal ones; a thread takes whichever is free.
        lines: that make up the text.
    """

    def __init__(self, readers: Sequence[TextReader], *, lines: Chosen = "captions") -> None:
        self._identity, self.lines = f"{readers[0].identity()}, {lines}", lines
        self._free: SimpleQueue[TextReader] = SimpleQueue()
        for reader in readers:
            self._free.put(reader)

    def identity(self) -> str:
        return self._identity

    def text(self, image: Image.Image) -> str:
        """The words in the order of reading; empty if there are none.

        Raises:
            ReaderDied: the engine died of this picture; the next one starts it anew.
        """
        reader = self._free.get()
        try:
            return words(arranged(reader.read([image])[0]), self.lines)
        finally:
            self._free.put(reader)


@contextmanager
def picture_words(
    engines: int,
    *,
    lines: Chosen = "captions",
    patience: float,
    wrap: Callable[[TextReader], TextReader] = lambda reader: reader,
) -> Iterator[PictureWords]:
    """Start engines of RapidOCR, and end them with the block.

    Args:
        engines: processes of 0.5 GB; as many pictures are read at once.
        wrap: makes of each engine what reads for the service, such as one that puts back lost spaces.
        patience: seconds for one picture.

    Raises:
        ConfigError: the number is impossible, or RapidOCR is not installed.
        ReaderDied: RapidOCR does not run.
    """
    if engines < 1:
        raise ConfigError(f"--ocr-engines is {engines}; expected at least 1.")
    with ExitStack() as stack:
        readers = [stack.enter_context(RapidReader()) for _ in range(engines)]
        for reader in readers:
            # Started before the first request, which would else wait for it; slower than any picture.
            reader.read([Image.new("RGB", (32, 32), "white")])
            reader.patience = patience
        yield PictureWords([*map(wrap, readers)], lines=lines)
