"""Training views without copies: what Vilio does before it trains, as new files with a report.

The rules are those of Vilio (Muennighoff/vilio, `utils/pandas_scripts.py`); what differs is that nothing is
written over, that a second run changes nothing, and that every decision is reported.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import combinations
from os.path import relpath
from pathlib import Path
from tempfile import TemporaryDirectory

from diptych.datasets.hateful_memes.hashes import Fingerprint, fingerprint
from diptych.datasets.hateful_memes.records import Meme, require_memes, split_path, write_memes
from diptych.errors import ConfigError, FormatError
from diptych.files import atomic_file, claimed, require_apart
from diptych.types import Progress

VIEWS = ("train", "traindev", "pretrain")
BITS = 64
CACHE_VERSION = 1
HASHES = "hashes.json"
SAVE_EVERY = 2000  # pictures, so that a run that is killed loses little
# found by hand by the author of Vilio: copies in groups of more than two, then three more
KNOWN_DUPLICATES = frozenset(map(str, (
    1348, 10793, 15072, 17834, 25780, 25913, 27156, 29013, 31408, 34518, 35097, 36804, 50624, 54981, 56134,
    58732, 64781, 68231, 68954, 69087, 70269, 71368, 71903, 82169, 85173, 91270, 91562, 92845, 94850, 95401,
    96078, 97162, 97542, 98517,
)))  # fmt: skip
KNOWN_BROKEN = frozenset({"63805", "73026", "16845", "27058"})  # their boxes do not fit their features there


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One meme, or a group of them, that is a copy or is treated apart.

    Args:
        ids: of the group, in the order train, dev_seen, dev_unseen; `dropped` are those left out.
        view: what they are left out of.
    """

    reason: str
    ids: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    view: str = "train, traindev"


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanReport:
    """What was decided, and how many memes each view holds.

    Args:
        given: memes of each split; of dev_unseen those that are not in dev_seen as well.
        hashed: pictures that were read; the others were in the cache.
        changed: whether a file was written.
    """

    given: dict[str, int]
    views: dict[str, int]
    decisions: tuple[Decision, ...]
    hashed: int
    changed: bool


def clean(
    root: Path | str,
    out: Path | str,
    *,
    known: bool = False,
    near: int = 0,
    cache: Path | str | None = None,
    progress: Progress | None = None,
) -> CleanReport:
    """Write `train`, `traindev` and `pretrain` into a folder that can be trained on, with `report.json`.

    `train` is the training split without copies and with the memes of dev_unseen that are not in dev_seen;
    `traindev` is that and dev_seen; `pretrain` is the training split with copies, and both dev splits. The
    other splits are copied, pictures and features are linked, so that the result is a data set.

    Args:
        known: also leave out the 34 ids of the challenge that Vilio's author found by hand, and from
            `pretrain` 4 more.
        near: also leave out pictures of which at most this many of 64 bits differ, with equal text.
        cache: where hashes are kept; `OUT/hashes.json` by default.
        progress: called with the number of pictures hashed, and of all.

    Raises:
        FormatError: broken records, unreadable pictures, an id in train and in a dev split.
        ConfigError: a split is missing, or `out` holds other things; or another process cleans into it.
    """
    root, out = Path(root), Path(out)
    if not 0 <= near < BITS // 2:
        raise ConfigError(f"near is {near}; expected 0 to {BITS // 2 - 1} of {BITS} bits.")
    require_apart(out, [root])
    splits = _read(root)
    everyone = [meme for memes in splits.values() for meme in memes]
    store = Path(cache) if cache is not None else out / HASHES
    with claimed(out):
        _require_own(out, root, everyone)
        prints, hashed = _fingerprints(root, everyone, store, progress)
        decisions = find_copies(everyone, prints, near=near)
        if known:
            decisions += _known(splits)
        in_train = {meme.id for meme in splits["train"]}
        decisions = [_only(decision, in_train) for decision in decisions]
        views = _views(splits, decisions)
        given, sizes = ({name: len(memes) for name, memes in group.items()} for group in (splits, views))
        settings = {"known": known, "near": near, "given": given, "views": sizes}
        report = {**settings, "decisions": [asdict(decision) for decision in decisions]}
        changed = _write(root, out, views, json.dumps(report, indent=2) + "\n")
    return CleanReport(given=given, views=sizes, decisions=tuple(decisions), hashed=hashed, changed=changed)


def _read(root: Path) -> dict[str, list[Meme]]:
    """Memes of train, dev_seen and what dev_unseen adds, in this order; dev_unseen may be missing."""
    train, seen = (require_memes(split_path(root, split)) for split in ("train", "dev_seen"))
    unseen = require_memes(root / "dev_unseen.jsonl") if (root / "dev_unseen.jsonl").exists() else []
    known = {meme.id for meme in seen}
    splits = {
        "train": train,
        "dev_seen": seen,
        "dev_unseen": [meme for meme in unseen if meme.id not in known],
    }
    lines = {meme.id: meme.line for meme in train}
    for name in ("dev_seen", "dev_unseen"):
        if both := [meme for meme in splits[name] if meme.id in lines]:
            first = both[0]
            raise FormatError(
                f"{root / name}.jsonl:{first.line}: meme {first.id} stands on line {lines[first.id]} of "
                f"train.jsonl too ({len(both)} do); expected every id in one of them. Remove it from one."
            )
    return splits


def find_copies(memes: Sequence[Meme], prints: Mapping[str, Fingerprint], *, near: int = 0) -> list[Decision]:
    """What to leave out, as if all memes were in train.

    Pictures with equal perceptual hash form a group. In a group of two with equal texts and equal crude
    hashes the first goes if the labels agree. Larger groups are reported only, as Vilio does; with `near`
    every meme goes that has a later one with equal text and label and at most `near` differing bits.

    Args:
        prints: by path of the picture.
        near: number of bits; 0 means the rule of Vilio alone.
    """
    groups: dict[int, list[Meme]] = defaultdict(list)
    for meme in memes:
        groups[prints[meme.image].perceptual].append(meme)
    decisions = []
    for group in groups.values():
        ids = tuple(meme.id for meme in group)
        texts = Counter(meme.text for meme in group)
        crude = Counter(prints[meme.image].crude for meme in group)
        if max(texts.values()) < 2 or max(crude.values()) < 2:
            continue
        if len(group) > 2:
            decisions.append(Decision(reason=f"copies in a group of {len(group)}, kept", ids=ids))
        elif group[0].label == group[1].label:
            decisions.append(Decision(reason="copy", ids=ids, dropped=ids[:1]))
        else:
            decisions.append(Decision(reason="copy with another label, kept", ids=ids))
    if near:
        gone = {key for decision in decisions for key in decision.dropped}
        decisions += _near_copies([meme for meme in memes if meme.id not in gone], prints, near)
    return decisions


def _near_copies(memes: Iterable[Meme], prints: Mapping[str, Fingerprint], near: int) -> list[Decision]:
    same_text: dict[str, list[Meme]] = defaultdict(list)
    for meme in memes:
        same_text[" ".join(meme.text.lower().split())].append(meme)
    decisions: dict[str, Decision] = {}
    for group in same_text.values():
        for one, other in combinations(group, 2):
            bits = (prints[one.image].perceptual ^ prints[other.image].perceptual).bit_count()
            if bits > near:
                continue
            agree, ids = one.label == other.label, (one.id, other.id)
            if agree:
                what = f"near copy, {bits} bits"
                decisions[one.id] = Decision(reason=what, ids=ids, dropped=ids[:1])
            else:
                what = f"near copy with another label, {bits} bits, kept"
                decisions.setdefault(one.id, Decision(reason=what, ids=ids))
    return list(decisions.values())


def _known(splits: Mapping[str, Sequence[Meme]]) -> list[Decision]:
    decisions = []
    for meme in (meme for memes in splits.values() for meme in memes):
        if meme.id in KNOWN_DUPLICATES:
            decisions.append(Decision(reason="known copy", ids=(meme.id,), dropped=(meme.id,)))
        if meme.id in KNOWN_BROKEN:
            decisions.append(
                Decision(reason="known broken boxes", ids=(meme.id,), dropped=(meme.id,), view="pretrain")
            )
    return decisions


def _only(decision: Decision, train: set[str]) -> Decision:
    """The decision as it is carried out: memes of the dev splits stay."""
    kept = [key for key in decision.dropped if key not in train]
    if not kept or decision.view == "pretrain":
        return decision
    return Decision(reason=f"{decision.reason}, kept in dev", ids=decision.ids)


def _views(splits: Mapping[str, Sequence[Meme]], decisions: Sequence[Decision]) -> dict[str, list[Meme]]:
    dropped: dict[str, set[str]] = defaultdict(set)
    for decision in decisions:
        dropped[decision.view].update(decision.dropped)
    train = [meme for meme in splits["train"] if meme.id not in dropped["train, traindev"]]
    train += splits["dev_unseen"]
    everyone = [meme for memes in splits.values() for meme in memes]
    return {
        "train": train,
        "traindev": [*train, *splits["dev_seen"]],
        "pretrain": [meme for meme in everyone if meme.id not in dropped["pretrain"]],
    }


def _fingerprints(
    root: Path, memes: Iterable[Meme], cache: Path, progress: Progress | None
) -> tuple[dict[str, Fingerprint], int]:
    """Fingerprints by picture, and how many were read. Decoding is outside Python's lock, so threads help."""
    known = _load_cache(cache)
    paths = sorted({meme.image for meme in memes})
    stamps = {path: _stamp(root / path) for path in paths}
    missing = [path for path in paths if stamps[path] not in known]
    problems: list[FormatError] = []
    with ThreadPoolExecutor() as pool:
        for done, (path, found) in enumerate(
            zip(missing, pool.map(lambda path: _try(root / path), missing), strict=True), 1
        ):
            if isinstance(found, FormatError):
                problems.append(found)
            else:
                known[stamps[path]] = found
            if done % SAVE_EVERY == 0 or done == len(missing):
                _save_cache(cache, known)
            if progress is not None:
                progress(done, len(missing))
    if problems:
        more = f" {len(problems) - 1} more: `diptych check {root}` lists all." if problems[1:] else ""
        raise FormatError(f"{problems[0]}{more}")
    return {path: known[stamps[path]] for path in paths}, len(missing)


def _try(path: Path) -> Fingerprint | FormatError:
    try:
        return fingerprint(path)
    except FormatError as error:
        return error


def _stamp(path: Path) -> str:
    """What tells that a file is the one that was hashed; of a missing one the path alone."""
    try:
        state = path.stat()
    except OSError:
        return str(path)
    return f"{path.resolve()} {state.st_mtime_ns} {state.st_size}"


def _load_cache(path: Path) -> dict[str, Fingerprint]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["diptych_hashes"] != CACHE_VERSION:
            return {}
        return {key: Fingerprint(int(bits, 16), crude) for key, (bits, crude) in content["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"{path}: not a cache of hashes, and kept ({error}); choose another one."
        ) from error


def _save_cache(path: Path, known: Mapping[str, Fingerprint]) -> None:
    files = {key: (f"{found.perceptual:016x}", found.crude) for key, found in sorted(known.items())}
    with atomic_file(path, "w", encoding="utf-8") as file:
        json.dump({"diptych_hashes": CACHE_VERSION, "files": files}, file, indent=0)


def _require_own(out: Path, root: Path, memes: Iterable[Meme]) -> None:
    """Refuse a folder with anything that an earlier run would not have written."""
    files = {"report.json", HASHES, *(f"{view}.jsonl" for view in VIEWS), *_copied(root)}
    links = _linked(memes)
    for one in out.iterdir() if out.exists() else ():
        own = one.is_symlink() if one.name in links else one.name in files or one.name.endswith(".part")
        if not own:
            raise ConfigError(
                f"{out} holds {one.name!r}, which is not of a cleaned data set; choose a new folder."
            )


def _copied(root: Path) -> dict[str, Path]:
    return {path.name: path for path in (*root.glob("dev_seen*.jsonl"), *root.glob("test*.jsonl"))}


def _linked(memes: Iterable[Meme]) -> set[str]:
    return {"features", "vocabulary.txt", *(Path(meme.image).parts[0] for meme in memes)}


def _write(root: Path, out: Path, views: Mapping[str, Sequence[Meme]], report: str) -> bool:
    """Write what is missing; whether there was anything.

    Raises:
        ConfigError: a file of the name has another content; nothing is written then.
    """
    contents = {"report.json": report.encode()}
    with TemporaryDirectory() as folder:
        for name, memes in views.items():
            write_memes(Path(folder) / f"{name}.jsonl", memes)
            contents[f"{name}.jsonl"] = (Path(folder) / f"{name}.jsonl").read_bytes()
    contents |= {name: path.read_bytes() for name, path in _copied(root).items()}
    there = {name for name in contents if (out / name).exists()}
    if other := sorted(name for name in there if (out / name).read_bytes() != contents[name]):
        raise ConfigError(
            f"{out} holds another {', '.join(other)}, and is kept; choose another folder, and say "
            f"--cache {out / HASHES} to reuse the hashes."
        )
    for name in sorted(contents.keys() - there, key="report.json".__eq__):  # the report is written last
        with atomic_file(out / name) as file:
            file.write(contents[name])
    for name in sorted(_linked(meme for memes in views.values() for meme in memes)):
        link, target = out / name, root / name
        if target.exists() and not link.exists() and not link.is_symlink():
            link.symlink_to(relpath(target.resolve(), out.resolve()))
    return len(there) < len(contents)
