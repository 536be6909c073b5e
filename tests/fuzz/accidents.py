"""Kills, full disks and taken places: the same command afterwards, or the user's files before it."""

import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.command import Outcome, contents, run
from tests.fuzz.seeds import GRID

Accident = Callable[[Case, float], tuple[Outcome, list[str]]]
TRAIN = "data.batch_size=4 trainer.checkpoint_every=1 loggers=[] progress=false root=@/w out=out"
PIXELS = "experiment=hateful_memes/concat_bert_tiny"
COMMANDS = {
    "import": "import @/formats/tsv out --resume",
    "import again": "import @/formats/tsv out --overwrite",
    "convert": "convert @/weights/u.safetensors out model.heads=4 --vocabulary @/vocabulary.txt --overwrite",
    "export": "export @/w/features out --format uniter-npz --overwrite",
    "export lmdb": "export @/w/features out --format mmf-lmdb --overwrite",
    "export hdf5": "export @/w/features out --format volta-hdf5 --overwrite",
    "clean": "clean @/w out",
    "ensemble": "ensemble @/runs/u/predictions @/runs/c/predictions --out out --method greedy --root @/w",
    "predict": "predict @/runs/c --root @/w --splits dev_seen,test_seen --out out",
    "vocabulary": "vocabulary @/w out --size 400",
    "fasttext": "fasttext @/w out --dim 4 --min-count 1 --bucket 50",
    "back": "convert --back @/runs/u out",
    "train": f"train experiment=hateful_memes/uniter_tiny trainer.max_steps=4 {TRAIN}",
    "train pixels": f"train {PIXELS} averaging=ema trainer.max_steps=3 {TRAIN}",
    "extract": f"extract @/w/img out {GRID} --grid 2x2 --shard 7 --resume",
    "study": "study run @/study.yaml --root @/w --out out --set trainer.checkpoint_every=1 --device cpu",
}
# not compared: what tells the time, and what only a resume needs
PASSING = re.compile(
    r"metrics\.csv|\.ckpt$|/steps/|lock$|README\.md$|\.json$|config\.yaml$|tensorboard|bundle\.yaml$"
)
CHANGES = ("mkdir", "rename", "remove", "rmdir", "symlink", "link", "truncate", "chmod")
WRITES = (*(f"os.{name}" for name in CHANGES), "shutil.rmtree")


def _words(name: str, case: Case) -> list[str]:
    return [word.replace("@", str(case.lab)) for word in COMMANDS[name].split()]


def _results(folder: Path) -> dict[str, str]:
    return {name: one for name, one in contents(folder).items() if not PASSING.search(name)}


def _count(path: Path, last: int = 0) -> None:
    """Count what changes files below the folder, into `path`; die before change number `last`."""
    root, done = str(Path.cwd()), 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal done
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event not in WRITES:
            return
        if not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if not str(Path(os.fsdecode(arguments[0])).absolute()).startswith(root):
            return
        done += 1
        if last and done >= last:
            os.kill(os.getpid(), signal.SIGKILL)
        if not last:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(handle, b"%d" % done)
            os.close(handle)

    sys.addaudithook(hook)


def _reference(name: str, case: Case, patience: float) -> tuple[dict[str, str], int, int]:
    """What the command makes undisturbed, how many changes that takes, and the largest file; made once."""
    kept = case.lab.parent / f"reference-{name.replace(' ', '-')}.json"
    if not kept.exists():
        folder = case.folder.parent / "reference"
        folder.mkdir()
        count = case.folder.parent / "count"
        outcome = run(
            _words(name, case), folder, case.folder.parent, patience=patience, before=partial(_count, count)
        )
        if outcome.code != 0:
            raise RuntimeError(f"{name} undisturbed came to {outcome.code}: {outcome.message}")
        largest = max(one.lstat().st_size for one in folder.rglob("*") if one.is_file())
        beside = kept.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps([_results(folder), int(count.read_text()), largest]))
        beside.replace(kept)
    results, changes, largest = json.loads(kept.read_text())
    return results, changes, largest


def _again(name: str, case: Case, patience: float, whole: dict[str, str]) -> tuple[Outcome, list[str]]:
    """The same command once more; where it says what to do, also that."""
    words = _words(name, case)
    outcome = run(words, case.folder, case.folder.parent, patience=patience)
    if outcome.code == 2 and (told := re.search(r"(resume|overwrite)(=true)?", outcome.message)):
        case.notes.append(outcome.message)
        outcome = run([*words, f"{told[1]}=true"], case.folder, case.folder.parent, patience=patience)
    faults = [f"afterwards: {one}" for one in outcome.faults()]
    if outcome.code == 2:
        faults.append("afterwards: refused")
    found = _results(case.folder)
    if outcome.code == 0 and found != whole:
        other = min(one for one in {**found, **whole} if found.get(one) != whole.get(one))
        faults.append(f"afterwards: other results ({re.sub(r'[0-9a-z_]{8}[.]part', '*.part', other)})")
    return outcome, faults


def _kill(name: str, case: Case, patience: float) -> tuple[Outcome, list[str]]:
    whole, changes, _ = _reference(name, case, patience)
    if case.whole:
        return _again(name, case, patience, whole)
    if case.rng.random() < 0.4:  # "again": something to lose
        run(_words(name, case), case.folder, case.folder.parent, patience=patience)
    last = case.rng.randrange(1, changes + 1)
    case.notes.append(f"killed before change {last} of {changes}")
    before = partial(_count, case.folder.parent / "count", last)
    run(_words(name, case), case.folder, case.folder.parent, patience=patience, before=before)
    return _again(name, case, patience, whole)


def _full(name: str, case: Case, patience: float) -> tuple[Outcome, list[str]]:
    whole, _, largest = _reference(name, case, patience)
    if case.whole:
        return _again(name, case, patience, whole)
    size = int(largest * case.rng.random())
    case.notes.append(f"no file beyond {size} of {largest} bytes")
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    outcome = run(_words(name, case), case.folder, case.folder.parent, patience=patience, before=limit)
    faults = outcome.faults()
    if outcome.code == 0 and _results(case.folder) != whole:
        faults.append("done, but something is missing")
    if faults:
        return outcome, faults
    half = [one for one, held in _results(case.folder).items() if held != whole.get(one, held)]
    if half and "partial" not in half[0]:
        faults.append(f"half-written {half[0]}")
    later, more = _again(name, case, patience, whole)
    return later, [*faults, *more]


def _precious(folder: Path, rng: Random) -> None:
    """A folder of somebody's, with names that diptych uses too."""
    for name in (
        "thesis.txt",
        "README.md",
        "config.yaml",
        "metrics.csv",
        "files/photo.txt",
        "checkpoints/model.pt",
        "train.jsonl",
    ):
        if rng.random() < 0.6 or name == "thesis.txt":
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"precious: {rng.random()}\n")


def _taken(name: str, case: Case, patience: float) -> tuple[Outcome, list[str]]:
    """Somebody else's folder, file, or the input itself where the result should go."""
    world = case.take("w")
    _precious(case.folder / "home", case.rng)
    (case.folder / "empty").mkdir()
    (case.folder / "file").write_text("precious")
    (case.folder / "link").symlink_to("home")
    places = (
        ".",
        "home",
        "home/files",
        "home/thesis.txt",
        "file",
        "file/below",
        "link",
        "w",
        "w/img",
        "w/train.jsonl",
        "..",
    )
    place = "empty/out" if case.whole else case.rng.choice(places)
    words = [re.sub("^@/w(?=/|$)|(?<==)@/w$", str(world), word) for word in COMMANDS[name].split()]
    words = [word.replace("@", str(case.lab)) for word in words]
    words = [place if word == "out" else f"out={place}" if word == "out=out" else word for word in words]
    if name.startswith("train") and case.chance(0.5):
        words.append("overwrite=true")
    elif case.chance(0.5) and name not in ("clean", "study") and "--overwrite" not in words:
        words.append("--overwrite")
    case.notes.append(f"out is {place}: {' '.join(words[-3:])}")
    before, seeds = contents(case.folder), contents(case.lab, deep=False)
    outcome = run(words, case.folder, case.folder.parent, patience=patience)
    after = contents(case.folder)
    faults = outcome.faults()
    lost = [one for one in before if before[one] != after.get(one)]
    asked = any("overwrite" in word for word in words) and place in ("file", "home/thesis.txt")
    if (lost and not (asked and lost == [place])) or contents(case.lab, deep=False) != seeds:
        faults.append(f"lost or changed: {lost[0] if lost else 'seeds'} (out is {place})")
    if case.whole and outcome.code != 0:
        faults.append("a new place is refused")
    return outcome, faults


ACCIDENTS: dict[str, Accident] = {
    **{f"kill {name}": partial(_kill, name) for name in COMMANDS},
    **{f"disk {name}": partial(_full, name) for name in COMMANDS},
    **{f"taken {name}": partial(_taken, name) for name in COMMANDS},
}
