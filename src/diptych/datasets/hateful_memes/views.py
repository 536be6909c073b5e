"""Cleaned training views: removes duplicates as Vilio does before training, and reports every decision.

The rules are those of Vilio (Muennighoff/vilio, `utils/pandas_scripts.py`). Unlike there, no file is
overwritten and a second run changes nothing.
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

from diptych.datasets.hashes import Fingerprint, fingerprint
from diptych.datasets.hateful_memes.records import Meme, require_memes, split_path, write_memes
from diptych.errors import ConfigError, FormatError
from diptych.files import atomic_file, claimed, require_apart
from diptych.types import Progress

VIEWS = ("train", "traindev", "pretrain")
BITS = 64
CACHE_VERSION = 1
HASHES = "hashes.json"
SAVE_EVERY = 2000  # pictures between two saves of the cache, in case the process is killed
# Found manually by the author of Vilio: copies in groups of more than two, then three more.
KNOWN_DUPLICATES = frozenset(map(str, (
    1348, 10793, 15072, 17834, 25780, 25913, 27156, 29013, 31408, 34518, 35097, 36804, 50624, 54981, 56134,
    58732, 64781, 68231, 68954, 69087, 70269, 71368, 71903, 82169, 85173, 91270, 91562, 92845, 94850, 95401,
    96078, 97162, 97542, 98517,
)))  # fmt: skip
# In Vilio's feature files, boxes and features of these memes do not belong together.
KNOWN_BROKEN = frozenset({"63805", "73026", "16845", "27058"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Decision about one meme or a group of copies.

    Args:
        reason: why the memes are dropped or reported.
        ids: ids of the group, in the order train, dev_seen, dev_unseen.
        dropped: ids that are removed.
        view: views from which they are removed.
    """

    reason: str
    ids: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    view: str = "train, traindev"


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanReport:
    """Decisions of a cleaning, and the sizes of the views.

    Args:
        given: number of memes of each split; for dev_unseen, of those that are not in dev_seen.
        views: number of memes of each view.
        hashed: number of pictures that were hashed; the others were in the cache.
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
    """Write the views `train`, `traindev` and `pretrain` and `report.json` to a new data set folder.

    `train` is the training split without copies, plus the memes of dev_unseen that are not in dev_seen.
    `traindev` is `train` plus dev_seen. `pretrain` is the training split with copies, plus both dev splits.
    Other splits are copied, and pictures and features are linked, so the result is a complete data set.

    Args:
        known: also remove the 34 copies that Vilio's author found manually, and 4 more memes from `pretrain`.
        near: also remove near copies: pictures with equal text whose hashes differ in at most this number of
            64 bits.
        cache: file for the hashes; `OUT/hashes.json` by default.
        progress: called with the number of hashed pictures and the total.

    Raises:
        FormatError: a record is invalid, a picture is unreadable, or an id is in train and in a dev split.
        ConfigError: a split is missing, `out` has other files, or another process writes to it.
    """
    root, out = Path(root), Path(out)
    if not 0 <= near < BITS // 2:
        raise ConfigError(f"near is {near}; expected 0 to {BITS // 2 - 1} of {BITS} bits.")
    # Writing into the root itself would replace the official `train.jsonl`, as Vilio does.
    require_apart(out, [root])
    splits = _read(root)
    everyone = [meme for memes in splits.values() for meme in memes]
    store = Path(cache) if cache is not None else out / HASHES
    # Two cleanings at once would each find the other's half-written folder.
    with claimed(out):
        _require_own(out, root, everyone)
        prints, hashed = _fingerprints(root, everyone, store, progress)
        decisions = find_copies(everyone, prints, near=near)
        if known:
            decisions += _known(splits)
        in_train = {meme.id for meme in splits["train"]}
        # Last, because copies are found among all memes, also where one of them is in a dev split.
        decisions = [_only(decision, in_train) for decision in decisions]
        views = _views(splits, decisions)
        given, sizes = ({name: len(memes) for name, memes in group.items()} for group in (splits, views))
        settings = {"known": known, "near": near, "given": given, "views": sizes}
        report = {**settings, "decisions": [asdict(decision) for decision in decisions]}
        changed = _write(root, out, views, json.dumps(report, indent=2) + "\n")
    return CleanReport(given=given, views=sizes, decisions=tuple(decisions), hashed=hashed, changed=changed)


def _read(root: Path) -> dict[str, list[Meme]]:
    """Read train, dev_seen and the additional memes of dev_unseen, in this order; dev_unseen is optional."""
    train, seen = (require_memes(split_path(root, split)) for split in ("train", "dev_seen"))
    unseen = require_memes(root / "dev_unseen.jsonl") if (root / "dev_unseen.jsonl").exists() else []
    known = {meme.id for meme in seen}
    splits = {
        "train": train,
        "dev_seen": seen,
        # 400 of the 540 memes are in dev_seen, too; with them, `traindev` would have these twice.
        "dev_unseen": [meme for meme in unseen if meme.id not in known],
    }
    lines = {meme.id: meme.line for meme in train}
    for name in ("dev_seen", "dev_unseen"):
        if both := [meme for meme in splits[name] if meme.id in lines]:
            first = both[0]
            raise FormatError(
                f"{root / name}.jsonl:{first.line}: meme {first.id} is also on line {lines[first.id]} of "
                f"train.jsonl ({len(both)} memes are in both); expected every id in one file. Remove one."
            )
    return splits


def find_copies(memes: Sequence[Meme], prints: Mapping[str, Fingerprint], *, near: int = 0) -> list[Decision]:
    """Find copies and decide which memes to remove, as if all were in train.

    Pictures with equal perceptual hashes form a group. In a group of two with equal texts and equal crude
    hashes, the first is removed if the labels agree. As in Vilio, larger groups are only reported. With
    `near`, a meme is also removed if a later one has equal text and label and at most `near` differing bits.

    Args:
        prints: fingerprints by path of the picture.
        near: number of bits; 0 applies Vilio's rule only.
    """
    groups: dict[int, list[Meme]] = defaultdict(list)
    for meme in memes:
        groups[prints[meme.image].perceptual].append(meme)
    decisions = []
    for group in groups.values():
        ids = tuple(meme.id for meme in group)
        texts = Counter(meme.text for meme in group)
        crude = Counter(prints[meme.image].crude for meme in group)
        # Vilio asks for any two equal texts and any two equal crude hashes in the group,
        # not for the same two memes.
        if max(texts.values()) < 2 or max(crude.values()) < 2:
            continue
        if len(group) > 2:
            decisions.append(Decision(reason=f"copies in a group of {len(group)}, kept", ids=ids))
        elif group[0].label == group[1].label:
            # The first one goes: of a copy in train and one in dev, that is the one in train.
            decisions.append(Decision(reason="copy", ids=ids, dropped=ids[:1]))
        else:
            decisions.append(Decision(reason="copy with another label, kept", ids=ids))
    if near:
        removed = {key for decision in decisions for key in decision.dropped}
        decisions += _near_copies([meme for meme in memes if meme.id not in removed], prints, near)
    return decisions


def _near_copies(memes: Iterable[Meme], prints: Mapping[str, Fingerprint], near: int) -> list[Decision]:
    same_text: dict[str, list[Meme]] = defaultdict(list)
    for meme in memes:
        # Only memes of equal text are compared, which keeps the pairs few; comparing all would be quadratic.
        same_text[" ".join(meme.text.lower().split())].append(meme)
    decisions: dict[str, Decision] = {}
    for group in same_text.values():
        for one, other in combinations(group, 2):
            # The bits of an exclusive or are those that differ.
            bits = (prints[one.image].perceptual ^ prints[other.image].perceptual).bit_count()
            if bits > near:
                continue
            agree, ids = one.label == other.label, (one.id, other.id)
            if agree:
                what = f"near copy, {bits} bits"
                # Overwrites a "kept" decision about the same meme.
                decisions[one.id] = Decision(reason=what, ids=ids, dropped=ids[:1])
            else:
                what = f"near copy with another label, {bits} bits, kept"
                # Only if nothing is known about this meme: a removal counts more.
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
    """Limit a decision to training memes: memes of the dev splits are never removed."""
    kept = [key for key in decision.dropped if key not in train]
    if not kept or decision.view == "pretrain":
        return decision
    return Decision(reason=f"{decision.reason}, kept in dev", ids=decision.ids)


def _views(splits: Mapping[str, Sequence[Meme]], decisions: Sequence[Decision]) -> dict[str, list[Meme]]:
    dropped: dict[str, set[str]] = defaultdict(set)
    for decision in decisions:
        dropped[decision.view].update(decision.dropped)
    train = [meme for meme in splits["train"] if meme.id not in dropped["train, traindev"]]
    # Vilio trains on the new memes of dev_unseen and validates on dev_seen.
    train += splits["dev_unseen"]
    everyone = [meme for memes in splits.values() for meme in memes]
    return {
        "train": train,
        "traindev": [*train, *splits["dev_seen"]],
        # With copies, as in Vilio: pre-training reads no labels, so a copy cannot leak one.
        "pretrain": [meme for meme in everyone if meme.id not in dropped["pretrain"]],
    }


def _fingerprints(
    root: Path, memes: Iterable[Meme], cache: Path, progress: Progress | None
) -> tuple[dict[str, Fingerprint], int]:
    """Fingerprint the pictures that are not in the cache, in threads: decoding releases the global lock.

    Returns:
        Fingerprints by path of the picture, and the number of pictures that were read.
    """
    known = _load_cache(cache)
    paths = sorted({meme.image for meme in memes})
    # By time and size, so that a picture that was replaced is hashed again.
    stamps = {path: _stamp(root / path) for path in paths}
    missing = [path for path in paths if stamps[path] not in known]
    problems: list[FormatError] = []
    with ThreadPoolExecutor() as pool:
        for done, (path, result) in enumerate(
            zip(missing, pool.map(lambda path: _try(root / path), missing), strict=True), 1
        ):
            if isinstance(result, FormatError):
                # Go on: all broken pictures are told at once.
                problems.append(result)
            else:
                known[stamps[path]] = result
            if done % SAVE_EVERY == 0 or done == len(missing):
                _save_cache(cache, known)
            if progress is not None:
                progress(done, len(missing))
    if problems:
        # All pictures were read before this error, so the cache saves that work for the next run.
        more = f" {len(problems) - 1} more: `diptych check {root}` lists all." if problems[1:] else ""
        raise FormatError(f"{problems[0]}{more}")
    return {path: known[stamps[path]] for path in paths}, len(missing)


def _try(path: Path) -> Fingerprint | FormatError:
    try:
        return fingerprint(path)
    except FormatError as error:
        return error


def _stamp(path: Path) -> str:
    """Cache key of a file: path, time of change and size; for a missing file, the path only."""
    try:
        state = path.stat()
    except OSError:
        # No picture in the cache has such a key, so `fingerprint` reports the missing file.
        return str(path)
    return f"{path.resolve()} {state.st_mtime_ns} {state.st_size}"


def _load_cache(path: Path) -> dict[str, Fingerprint]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        # An older cache is ours: made anew. Any other file is the user's and kept.
        if content["diptych_hashes"] != CACHE_VERSION:
            return {}
        return {key: Fingerprint(int(bits, 16), crude) for key, (bits, crude) in content["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"{path}: not a cache of hashes ({error}), so it is kept; choose another file."
        ) from error


def _save_cache(path: Path, known: Mapping[str, Fingerprint]) -> None:
    files = {key: (f"{item.perceptual:016x}", item.crude) for key, item in sorted(known.items())}
    with atomic_file(path, "w", encoding="utf-8") as file:
        json.dump({"diptych_hashes": CACHE_VERSION, "files": files}, file, indent=0)


def _require_own(out: Path, root: Path, memes: Iterable[Meme]) -> None:
    """Check that a folder has only files that an earlier run would have written."""
    files = {"report.json", HASHES, *(f"{view}.jsonl" for view in VIEWS), *_copied(root)}
    links = _linked(memes)
    for path in out.iterdir() if out.exists() else ():
        # `.part` is the remainder of a run that was killed.
        own = path.is_symlink() if path.name in links else path.name in files or path.name.endswith(".part")
        if not own:
            raise ConfigError(
                f"{out} has {path.name!r}, which is not part of a cleaned data set; choose a new folder."
            )


def _copied(root: Path) -> dict[str, Path]:
    return {path.name: path for path in (*root.glob("dev_seen*.jsonl"), *root.glob("test*.jsonl"))}


def _linked(memes: Iterable[Meme]) -> set[str]:
    return {"features", "vocabulary.txt", *(Path(meme.image).parts[0] for meme in memes)}


def _write(root: Path, out: Path, views: Mapping[str, Sequence[Meme]], report: str) -> bool:
    """Write missing files, and return whether there were any.

    Raises:
        ConfigError: an existing file has other content; then nothing is written.
    """
    contents = {"report.json": report.encode()}
    # All bytes are made first, because nothing may be written if one existing file differs.
    with TemporaryDirectory() as folder:
        for name, memes in views.items():
            write_memes(Path(folder) / f"{name}.jsonl", memes)
            contents[f"{name}.jsonl"] = (Path(folder) / f"{name}.jsonl").read_bytes()
    contents |= {name: path.read_bytes() for name, path in _copied(root).items()}
    there = {name for name in contents if (out / name).exists()}
    if other := sorted(name for name in there if (out / name).read_bytes() != contents[name]):
        raise ConfigError(
            f"{out} has another {', '.join(other)}, so it is kept; choose another folder, and set "
            f"--cache {out / HASHES} to reuse the hashes."
        )
    # The report is written last, because it marks a complete folder.
    for name in sorted(contents.keys() - there, key="report.json".__eq__):
        with atomic_file(out / name) as file:
            file.write(contents[name])
    # Relative links, so that both folders can be moved together.
    for name in sorted(_linked(meme for memes in views.values() for meme in memes)):
        link, target = out / name, root / name
        # A broken link does not "exist", but its name is taken.
        if target.exists() and not link.exists() and not link.is_symlink():
            link.symlink_to(relpath(target.resolve(), out.resolve()))
    return len(there) < len(contents)
