"""Reads the vocabularies of SentencePiece: `spiece.model`, and the `tokenizer.json` of Hugging Face.

Both may be strangers' files. Nothing of them is given to native code before its sizes are checked: a damaged
table of characters would end the process and not the function.
"""

import base64
import binascii
import json
import math
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from typing_extensions import TypedDict

from diptych.documents import extensible, read_json
from diptych.errors import FormatError
from diptych.files import require_file

LARGEST = 16 << 20  # bytes of a spiece.model; Gemma's has 4 million
MOST = 1 << 20  # pieces; Gemma has 256,000
LONGEST = 1 << 10  # characters of a piece
NORMAL, UNKNOWN, CONTROL, OWN, UNUSED = 1, 2, 3, 4, 5  # types of pieces in a spiece.model; 6 are bytes
ADVICE = "expected SentencePiece's spiece.model, or a tokenizer.json with a Unigram or BPE model."
# Steps of a tokenizer.json that SentencePiece's own normalization consists of.
KNOWN_STEPS = {"Precompiled", "Sequence", "Strip", "Replace", "Lowercase", "Prepend"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """A vocabulary of SentencePiece.

    Args:
        pieces: a text and a score for each, in the order of ids. Scores of byte pairs are not used.
        merges: pairs of pieces in the order in which they are joined; None for a Unigram model.
        unknown: id of what has no piece.
        control: ids of pieces that a text never contains, whatever it says.
        own: pieces that a text is searched for before all others.
        characters: the compiled table by which characters are replaced; empty if none are.
        bytes_of_unknown: spell unknown characters in bytes.
        blanks: a blank is put in front, and further ones at the ends and after blanks are removed.
    """

    pieces: Sequence[tuple[str, float]]
    merges: Sequence[tuple[str, str]] | None
    unknown: int
    control: frozenset[int]
    own: tuple[str, ...] = ()
    characters: bytes = b""
    bytes_of_unknown: bool = False
    blanks: bool = True


def read_pieces(path: Path) -> Pieces:
    """Read a vocabulary; the first byte tells the two forms apart.

    Raises:
        FormatError: the file is neither form, is damaged, or needs what diptych does not do.
    """
    with require_file(path, "a SentencePiece vocabulary").open("rb") as file:
        first = file.read(1)
        # A spiece.model begins with its first piece, whose key is the byte 10: a line feed, which could also
        # stand before the brace of a JSON file, but no program writes it there.
        found = _from_json(path) if first == b"{" else _from_model(first + file.read(LARGEST), path)
    names = [name for name, _ in found.pieces]
    if not 0 < len(names) <= MOST or any(not 0 < len(name) <= LONGEST for name in names):
        raise FormatError(
            f"{path}: {len(names)} pieces, the longest of {max(map(len, names), default=0)} characters; "
            f"expected up to {MOST:,} of 1 to {LONGEST:,}. Use a complete copy."
        )
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise FormatError(f"{path}: the piece {twice!r} is there twice; expected every piece once.")
    # A score that is no number would make every way to cut a text the best one.
    if not all(math.isfinite(score) for _, score in found.pieces) or not 0 <= found.unknown < len(names):
        raise FormatError(f"{path}: a score is not finite, or piece {found.unknown} for the unknown is none.")
    _require_characters(found.characters, path)
    return found


@extensible
class _Added(TypedDict):
    id: int
    content: str
    special: bool


@extensible
class _Model(TypedDict):
    type: str
    vocab: list[list[str | float]] | dict[str, int]
    unk_id: NotRequired[int | None]
    unk_token: NotRequired[str | None]
    merges: NotRequired[list[str | list[str]]]
    byte_fallback: NotRequired[bool]


@extensible
class _File(TypedDict):
    model: _Model
    added_tokens: NotRequired[list[_Added]]
    normalizer: NotRequired[dict[str, Any] | None]


def _from_json(path: Path) -> Pieces:
    file = read_json(path, _File, advice=ADVICE)
    model, added = file["model"], file.get("added_tokens", [])
    steps = [*_steps(file.get("normalizer"))]
    if other := [step["type"] for step in steps if step.get("type") not in KNOWN_STEPS]:
        raise FormatError(f"{path}: normalizer {other[0]!r} is not SentencePiece's; {ADVICE}")
    compiled = next((one.get("precompiled_charsmap") for one in steps if one["type"] == "Precompiled"), None)
    try:
        characters = base64.b64decode(str(compiled or ""), validate=True)
    except binascii.Error as error:
        raise FormatError(f"{path}: its table of characters is no base64 ({error}). {ADVICE}") from error
    spelled = model.get("byte_fallback", False)
    vocab, unknown, kind = model["vocab"], model.get("unk_id"), model["type"]
    if kind == "Unigram" and isinstance(vocab, list) and unknown is not None:
        # Ids behind the vocabulary, as T5's 100 further ones, have no row in any word embedding of SigLIP.
        special = {one["id"] for one in added if one["special"]}
        control = frozenset(special & set(range(len(vocab))) | {unknown})
        pieces = [(str(one[0]), _score(one, path)) for one in vocab]
        return Pieces(
            pieces=pieces,
            merges=None,
            unknown=unknown,
            control=control,
            characters=characters,
            bytes_of_unknown=spelled,
        )
    if kind == "BPE" and isinstance(vocab, dict) and model.get("unk_token") in vocab:
        if sorted(vocab.values()) != [*range(len(vocab))]:
            raise FormatError(f"{path}: the ids of its {len(vocab)} pieces are not 0, 1, 2, ...; {ADVICE}")
        names = sorted(vocab, key=vocab.__getitem__)
        special = {vocab[one["content"]] for one in added if one["special"] and one["content"] in vocab}
        own = tuple(one["content"] for one in added if not one["special"] and one["content"] in vocab)
        return Pieces(
            pieces=[(name, 0.0) for name in names],
            merges=_merges(model.get("merges", []), vocab, special, path),
            unknown=vocab[str(model.get("unk_token"))],
            control=frozenset(special),
            own=own,
            characters=characters,
            bytes_of_unknown=spelled,
            blanks=False,
        )
    raise FormatError(f"{path}: its model has the type {kind!r} without a token for the unknown; {ADVICE}")


def _score(one: Sequence[str | float], path: Path) -> float:
    if len(one) != 2 or not isinstance(one[0], str) or isinstance(one[1], str):
        raise FormatError(f"{path}: {json.dumps(one)[:60]} is no piece with its score; {ADVICE}")
    return float(one[1])


def _steps(node: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """A normalizer and those in its sequences; what is none has no known type."""
    if not node:
        return
    yield node if isinstance(node.get("type"), str) else {"type": str(node.get("type"))}
    inner = node.get("normalizers", [])
    for one in inner if isinstance(inner, list) else [inner]:
        yield from _steps(one if isinstance(one, Mapping) else {"type": str(one)})


def _merges(
    merges: Sequence[str | list[str]], vocab: Mapping[str, int], special: set[int], path: Path
) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for number, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        whole = vocab.get("".join(pair))
        # A merge that makes a special token would let a text contain one.
        if len(pair) != 2 or not vocab.keys() >= {*pair} or whole is None or whole in special:
            raise FormatError(f"{path}: merge {number}, {json.dumps(merge)[:60]}, does not make a piece.")
        pairs.append((pair[0], pair[1]))
    return pairs


# The parts of a spiece.model, by number: https://github.com/google/sentencepiece, sentencepiece_model.proto.
def _from_model(content: bytes, path: Path) -> Pieces:
    if len(content) > LARGEST:
        raise FormatError(f"{path}: has more than {LARGEST:,} bytes; {ADVICE}")
    pieces: list[tuple[str, float]] = []
    kinds: list[int] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    try:
        for number, value in _fields(content):
            if number == 1:
                one = dict(_fields(_bytes(value)))
                score: float = struct.unpack("<f", one.get(2, bytes(4)))[0]
                pieces.append((_bytes(one[1]).decode(), score))
                kinds.append(one.get(3, NORMAL))
            elif number in (2, 3):
                (trainer if number == 2 else normalizer).update(_fields(_bytes(value)))
        characters = _bytes(normalizer.get(2, b""))
    # KeyError, TypeError: a part is missing, or is a number where bytes belong.
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise FormatError(f"{path}: is no SentencePiece model ({error}); {ADVICE}") from error
    if trainer.get(3, 1) != 1:
        raise FormatError(
            f"{path}: its model has the type {trainer[3]} (2 is byte pairs), and only Unigram (1) is read "
            "from this form; use the tokenizer.json of the weights, which also lists the merges."
        )
    # Settings whose default is true, and which SigLIP leaves at it; and blanks behind words.
    odd = [name for name, key in (("prefix", 3), ("blanks", 4), ("escape", 5)) if not normalizer.get(key, 1)]
    if odd or trainer.get(24) or OWN in kinds:
        raise FormatError(
            f"{path}: has symbols of its own, or blanks treated otherwise ({', '.join(odd) or 'none'}); "
            "expected a model as SigLIP's."
        )
    hidden = frozenset(place for place, kind in enumerate(kinds) if kind in (UNKNOWN, CONTROL, UNUSED))
    return Pieces(
        pieces=pieces,
        merges=None,
        unknown=kinds.index(UNKNOWN) if UNKNOWN in kinds else -1,
        control=hidden,
        characters=characters,
        bytes_of_unknown=bool(trainer.get(35, 0)),
    )


def _fields(content: bytes | memoryview) -> Iterator[tuple[int, Any]]:
    """The parts of a message of protocol buffers: number and value, which is bytes or a whole number.

    Raises:
        ValueError: a length goes beyond the end, or the encoding is none that SentencePiece uses.
    """
    view, place = memoryview(content), 0
    while place < len(view):
        key, place = _number(view, place)
        if key & 7 == 0:
            value, place = _number(view, place)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            length, place = _number(view, place)
        elif key & 7 in (1, 5):
            length = 8 if key & 7 == 1 else 4
        else:
            raise ValueError(f"encoding {key & 7} at byte {place}")
        if length > len(view) - place:
            raise ValueError(f"{length} bytes at byte {place} of {len(view)}")
        yield key >> 3, view[place : place + length]
        place += length


def _bytes(value: Any) -> bytes:
    # Of a number, bytes() would make that many zeros.
    if isinstance(value, int):
        raise ValueError(f"the number {value} in place of bytes")
    return bytes(value)


def _number(view: memoryview, place: int) -> tuple[int, int]:
    """A whole number of seven bits per byte, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(view):
            break
        byte = view[place]
        value |= (byte & 127) << shift
        place += 1
        if byte < 128:
            return value, place
    raise ValueError(f"a number does not end at byte {place}")


def _require_characters(table: bytes, path: Path) -> None:
    """Follow every link of a compiled table of characters.

    It is a length, a trie in a double array of darts-clone, and texts that end with a zero. The library
    follows the links without looking, and a link to nowhere ends the process.
    """
    if not table:
        return
    size = int.from_bytes(table[:4], "little")
    if len(table) < 5 or size % 4 or not 0 < size <= len(table) - 5 or table[-1]:
        raise FormatError(f"{path}: its table of characters has {len(table)} bytes and names {size}.")
    texts = np.frombuffer(table[4 + size :], np.uint8)
    try:
        table[4 + size :].decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: the texts of its table of characters are no UTF-8 ({error}).") from error
    units = np.frombuffer(table[4 : 4 + size], "<u4")
    leaf = units >> 31 == 1
    places = np.arange(len(units), dtype=np.uint32)
    # Bit 9 says that an offset counts blocks of 256; a step then adds any byte.
    links = places ^ ((units >> 10) << ((units & 512) >> 6))
    values = units[leaf] & 0x7FFF_FFFF
    ends = ~leaf & (units >> 8 & 1 == 1)  # a replacement hangs on the unit that such a link names
    # The root is followed whatever it is.
    lost = leaf[0] or ((links[~leaf] | 255) >= len(units)).any() or not leaf[links[ends]].all()
    # A text must begin with a whole character.
    wrong = (values >= len(texts)).any() or (texts[values.clip(max=len(texts) - 1)] & 0xC0 == 0x80).any()
    if lost or wrong:
        raise FormatError(f"{path}: its table of characters has links beyond its end. Use a complete copy.")
