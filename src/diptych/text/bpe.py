"""CLIP's byte-pair tokenizer over its published list of merges."""

import gzip
import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path

from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from diptych.errors import ConfigError, FormatError, missing_library
from diptych.files import require_file
from diptych.types import Tokens

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = 48_894  # merges of the published vocabulary; its file has five times as many, which are not used
LONGEST = 8 << 20  # bytes of a list of merges; OpenAI's has 3 million
WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


class BytePair:
    """The tokenizer of CLIP: lowercase byte pairs, `start text end`.

    Gives the same tokens as openai/CLIP and open_clip. Special tokens that are written out in a text are
    plain characters, as in open_clip; with OpenAI's tokenizer, anybody can end a text early by writing its
    end token. A pickled tokenizer contains the vocabulary and does not need the file.

    Args:
        vocabulary: OpenAI's `bpe_simple_vocab_16e6.txt.gz`, or `merges.txt` of Hugging Face: a line about the
            version, then one merge per line, the most frequent first.
        fix: `ftfy` repairs the encoding of a text, as OpenAI does. `none` leaves texts as they are, as
            Hugging Face's CLIPTokenizer nearly does; curly quotes and ligatures then give other tokens.
        merges: number of merges that are used.
        special_in_text: read special tokens in a text as such, as OpenAI does (compat).

    Raises:
        FormatError: the file is no list of merges, or ends too soon.
        ConfigError: `fix` is unknown, or `ftfy` is not installed.
    """

    def __init__(
        self,
        vocabulary: Path | str,
        *,
        fix: str = "ftfy",
        merges: int = MERGES,
        special_in_text: bool = False,
    ) -> None:
        if fix not in ("ftfy", "none"):
            raise ConfigError(f"the tokenizer has fix={fix!r}; expected 'ftfy' or 'none'.")
        if fix == "ftfy":
            _ftfy()  # a missing library is found now and not in the middle of a run
        self.fix = fix
        pairs = _read_merges(Path(vocabulary), merges)
        letters = _byte_letters()
        tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
        tokens += [first + second for first, second in pairs]
        self.start_id, self.end_id = len(tokens), len(tokens) + 1
        index = {token: number for number, token in enumerate([*tokens, START, END])}
        self.pad_id = 0  # as OpenAI; no state of a real token sees it
        self.mask_id = self.end_id  # CLIP has no mask
        self.special_ids = (self.start_id, self.end_id)
        tokenizer = Tokenizer(BPE(index, pairs, end_of_word_suffix="</w>", unk_token=END))
        # The pattern finds the words; what lies between them (white space) is removed.
        words = Split(Regex(WORDS), "removed", invert=True)
        tokenizer.pre_tokenizer = Sequence([words, ByteLevel(add_prefix_space=False, use_regex=False)])
        if special_in_text:
            tokenizer.add_special_tokens([START, END])
        self._tokenizer = tokenizer

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    @property
    def tokens(self) -> tuple[str, ...]:
        """The vocabulary in the order of ids."""
        index = self._tokenizer.get_vocab()
        return tuple(sorted(index, key=index.__getitem__))

    @property
    def fingerprint(self) -> str:
        """Digest that is equal for tokenizers that give equal tokens for every text."""
        return hashlib.sha256(f"{self.fix} {self._tokenizer.to_str()}".encode()).hexdigest()

    def encode(self, text: str, text_b: str | None = None, *, max_tokens: int) -> Tokens:
        """Tokenize a text. CLIP reads one text, so a second one is appended to it.

        Args:
            max_tokens: largest number of tokens, special tokens included. Longer texts lose their end.

        Returns:
            The tokens; offsets count characters of the cleaned text.

        Raises:
            ConfigError: `max_tokens` leaves no room for the special tokens.
        """
        if max_tokens < 2:
            raise ConfigError(f"max_tokens is {max_tokens}; expected at least 2 for the special tokens.")
        whole = text if text_b is None else f"{text} {text_b}"
        found = self._tokenizer.encode(self.clean(whole), add_special_tokens=False)
        ids = (self.start_id, *found.ids[: max_tokens - 2], self.end_id)
        offsets = ((0, 0), *found.offsets[: max_tokens - 2], (0, 0))
        return Tokens(ids=ids, segments=(0,) * len(ids), offsets=offsets)

    def clean(self, text: str) -> str:
        """Repair a text, resolve HTML entities, collapse white space and lowercase, as openai/CLIP does."""
        # Unpaired surrogates, which JSON can contain, cannot be encoded as bytes.
        text = text.encode("utf-8", "replace").decode("utf-8")
        if self.fix == "ftfy":
            text = _ftfy()(text)
        # Twice, because texts from the web are often escaped twice (`&amp;amp;`).
        text = html.unescape(html.unescape(text))
        # Entities can name surrogates, too.
        text = text.encode("utf-8", "replace").decode("utf-8")
        return re.sub(r"\s+", " ", text.strip()).strip().lower()


def _ftfy() -> Callable[[str], str]:
    try:
        from ftfy import fix_text
    except ImportError as error:
        raise missing_library("CLIP's cleaning of texts (or set fix=none)", "clip", error) from error
    fixed: Callable[[str], str] = fix_text
    return fixed


def _byte_letters() -> list[str]:
    """A printable character for each byte, in GPT-2's order: printable bytes stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(256 + number) for number in range(len(others)))]


def _read_merges(path: Path, most: int) -> list[tuple[str, str]]:
    """Read the first merges of a list; every part of a merge must be known by then."""
    lines = _read_text(path).split("\n")
    # The first line names the version; a merge has two parts, too, but no `#version` in it.
    first = 1 if lines[0].startswith('"') or lines[0].startswith("#") else 0
    letters = _byte_letters()
    known = {*letters, *(f"{letter}</w>" for letter in letters)}
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(lines[first : first + most], first + 1):
        if not line and number == len(lines):
            break
        pair = line.split()
        if len(pair) != 2 or not known.issuperset(pair) or "".join(pair) in known:
            raise FormatError(
                f"{path}:{number}: {line[:40]!r} is no merge of two known tokens into a new one; expected "
                "CLIP's list of merges, bpe_simple_vocab_16e6.txt.gz or merges.txt."
            )
        known.add("".join(pair))
        pairs.append((pair[0], pair[1]))
    if not pairs:
        raise FormatError(f"{path}: has no merges; expected CLIP's bpe_simple_vocab_16e6.txt.gz.")
    return pairs


def _read_text(path: Path) -> str:
    try:
        with require_file(path, "a list of merges").open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            # One byte more than allowed: a small gzip file can unpack to gigabytes.
            content = (gzip.GzipFile(fileobj=file) if packed else file).read(LONGEST + 1)
    except (EOFError, gzip.BadGzipFile, OSError) as error:
        raise FormatError(f"{path}: cannot be read ({error}). Download or copy it again.") from error
    if len(content) > LONGEST:
        raise FormatError(f"{path}: has more than {LONGEST:,} bytes; expected a list of merges.")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 at byte {error.start}; expected a list of merges.") from error
