"""Damaged settings and state: studies, runs, progress of extractions, remembered calls; odd words."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

from tests.fuzz.case import Case, target
from tests.fuzz.damage import (
    damage_any_json,
    damage_bytes,
    damage_cells,
    damage_lines,
    damage_text,
)
from tests.fuzz.hostile import damage_settings
from tests.fuzz.seeds import GRID, SHORT


def _spoil(case: Case, path: Path) -> None:
    ways = {
        ".yaml": damage_settings(case.marker),
        ".json": damage_any_json,
        ".csv": damage_cells(b","),
        ".md": damage_text,
    }
    case.spoil(path, ways.get(path.suffix, damage_bytes))


@target("study settings", "study.settings", weight=3)
def study_settings(case: Case) -> list[str]:
    case.spoil(case.take("study.yaml"), damage_settings(case.marker))
    data = "study.yaml --root @/w --out out"
    damaged = () if case.whole else (f"study predict {data} --bundles @/st",)
    return case.pick(f"study status {data}", f"study run {data} --limit 4", *damaged)


STATE = ("study.progress", "study.score", "study.run", "study.call", "ensemble.members")


@target("study state", *STATE, writes=("st",), weight=3)
def study_state(case: Case) -> list[str]:
    folder = case.take("st")
    case.take("study.yaml")
    kinds = ("members.json", "steps/*.json", "steps/call.json", "*/*.json", "FIN_*.csv", "U1/**/*.csv")
    settings = ("U1/**/config.yaml", "U1/**/bundle.yaml")
    found = sorted(folder.glob(case.rng.choice((*kinds, *settings)))) or [folder / "members.json"]
    _spoil(case, case.rng.choice(found))
    damaged = (
        "study status study.yaml --root @/w --out st",
        "study run study.yaml --root @/w --out st",
        "score @/w/img/00001.png --text a --model st",
    )
    return case.pick("study status study.yaml --out st", *(() if case.whole else damaged))


@target("run folder", "recipe.folder", "train.checkpoint", "train.fit", writes=("runs",), weight=2)
def run_folder(case: Case) -> list[str]:
    folder = case.take("runs/u", "runs/u")
    (case.folder / "w").symlink_to(case.lab / "w")
    if not case.whole:
        shutil.rmtree(folder / "bundle")  # as if it had been stopped before the end
    name = case.rng.choice(("config.yaml", "checkpoints/last.ckpt", "checkpoints/last.ckpt", "metrics.csv"))
    if name.endswith(".ckpt") and case.chance(0.5):
        case.put(folder / name, *case.hostile_pickle())
    else:
        _spoil(case, folder / name)
    return case.pick(f"train experiment=hateful_memes/uniter_tiny out=runs/u {SHORT}")


@target("read words", "detect.words", weight=1)
def read_words(case: Case) -> list[str]:
    out = case.take("words.jsonl", "out/ocr.jsonl")
    if case.chance(0.5):  # as if it had been killed before the end
        out = out.rename(case.folder / "out" / "ocr.jsonl.partial")
    case.spoil(out, damage_bytes, damage_any_json, damage_text)
    more = () if case.whole else ("ocr @/words.txt --out out/ocr.jsonl --overwrite",)
    return case.pick("ocr @/words.txt --out out/ocr.jsonl --resume", *more)


@target("state of extract", "detect.progress", "features.writer", weight=2)
def state_of_extract(case: Case) -> list[str]:
    folder = case.take("extracted", "out")
    report = next(folder.glob("*.json"))
    store = report.with_suffix("")
    if case.chance(0.5):  # as if it had been killed before the end
        work = folder / f"{report.stem.removesuffix('-grid')}.extract"
        work.mkdir()
        (work / "plan.json").write_text(json.dumps(json.loads(report.read_text())["plan"]))
        for number in range(case.rng.randrange(1, 5)):
            (work / f"part-{number:05d}.json").write_text(json.dumps({"pictures": 9, "bad": []}))
        (store / "index.arrow").unlink()
        store.rename(store.with_name(f"{store.name}.partial"))
        report.unlink()
    files = sorted(one for one in folder.rglob("*") if one.is_file())
    states = [one for one in files if one.suffix == ".json"]
    _spoil(case, case.rng.choice(states if states and case.chance(0.7) else files))
    return case.pick(f"extract @/w/img out {GRID} --shard 9 --resume")


@target(
    "policy", "calibrate.policy", "calibrate.bands", "cli.calibrate", "cli.drift", "cli.score", "cli.predict"
)
def policy(case: Case) -> list[str]:
    case.spoil(case.take("judged/policy.yaml"), damage_settings(case.marker))
    words = "@/w/img/00001.png --text a --policy policy.yaml"
    return case.pick(f"predict @/runs/c --image {words}", f"score {words} --model @/runs/c")


@target("memory", "memory.store")
def memory(case: Case) -> list[str]:
    folder = case.take("memory")
    _spoil(case, folder / case.rng.choice(("memory.json", "vectors.safetensors", ".diptych")))
    meme = "score @/w/img/00001.png --text a --model @/runs/u --memory memory"
    return case.pick("memory list memory", meme)


@target("service", "serve.keys", "serve.policies", "serve.memories", "serve.setup", "cli.serve", weight=2)
def service(case: Case) -> list[str]:
    case.take("judged", "judged")
    case.take("memory", "memory")
    keys = case.folder / "keys.txt"
    keys.write_text(f"# of moderators\n\nmoderation:{'0a' * 32}:reviewer\nboss:{'1b' * 32}:admin\n")
    keys.chmod(0o600)
    name = case.rng.choice(
        ("keys.txt", "keys.txt", "judged/policy.yaml", "memory/memory.json", "memory/vectors.safetensors")
    )
    if name == "keys.txt":
        case.spoil(keys, damage_bytes, damage_text, damage_lines)
    else:
        _spoil(case, case.folder / name)
    about = "--api-keys keys.txt --policy judged/policy.yaml --memory memory --device cpu"
    return case.pick(f"serve @/runs/c @/runs/u {about} --fetch-from pictures.example.org --check")


@target("audit log", "serve.audit", "cli.audit_log")
def audit_log(case: Case) -> list[str]:
    folder, previous = case.folder / "audit", "0" * 64
    folder.mkdir()
    for day in ("2026-11-29", "2026-11-30"):
        lines = []
        for number in range(3):
            record = {
                "kind": "decision",
                "request_id": f"{day}-{number}",
                "action": "allow",
                "previous": previous,
            }
            body = json.dumps(record).encode()
            previous = sha256(body).hexdigest()
            lines.append(body[:-1] + f', "sha256": "{previous}"}}\n'.encode())
        (folder / f"{day}.jsonl").write_bytes(b"".join(lines))
    case.spoil(folder / case.rng.choice(("2026-11-29.jsonl", "2026-11-30.jsonl")), damage_bytes, damage_lines)
    return case.pick("audit-log verify audit")


@target("costs and groups", "calibrate.bands", "calibrate.slices", "datasets.binary_csv")
def costs_and_groups(case: Case) -> list[str]:
    folder = case.take("judged")
    name, way = case.rng.choice(
        (("costs.yaml", damage_settings(case.marker)), ("tags.csv", damage_cells(b",")))
    )
    case.spoil(folder / name, way)
    data = "--root judged --data hateful_memes --split dev_seen --samples 5"
    more = "--costs judged/costs.yaml --groups judged/tags.csv"
    return case.pick(f"calibrate judged/dev_seen.csv {data} {more}")


@target("runs on a page", "audit.looks", "report.runs", "cli.report", writes=("page.html",))
def runs_on_a_page(case: Case) -> list[str]:
    folder = case.take("runs/u", "runs/u")
    _spoil(
        case, folder / case.rng.choice(("config.yaml", "inputs.json", "metrics.csv", "bundle/bundle.yaml"))
    )
    return case.pick("report runs --root @/w --samples 5 --out page.html")


@target("answers of others", "ensemble.foreign", "cli.import_scores", writes=("out", "out.npz"))
def answers_of_others(case: Case) -> list[str]:
    case.spoil(case.take("judged/vlm.jsonl"), damage_lines, damage_text)
    data = "--root @/judged --data hateful_memes --split dev_seen"
    return case.pick(f"import-scores vlm.jsonl --as vlm {data} --out out.npz")


@target("cascades", "calibrate.cascade", "cli.cascade", writes=("out", "out.csv"))
def cascades(case: Case) -> list[str]:
    folder = case.take("judged")
    name = case.rng.choice(("members.yaml", "cascade.yaml"))
    case.spoil(folder / name, damage_settings(case.marker))
    words = "cascade judged/members.yaml --root @/judged --data hateful_memes --samples 5"
    # To apply one, because 90 memes are too few to find one.
    return case.pick(f"{words} --apply judged/cascade.yaml --split dev_seen --out out.csv")


@target("lists of pictures", "detect.listing", weight=0.7)
def lists_of_pictures(case: Case) -> list[str]:
    case.spoil(case.take("list.txt"), damage_text)
    return case.pick(f"extract list.txt out {GRID}")


WORDS = (
    *(
        "",
        " ",
        ".",
        "..",
        "nowhere",
        "/dev/null",
        "x" * 300,
        "x" * 5000,
        "a\nb",
        "[/red]",
        "\u00e9",
        "\udcff",
    ),
    *("a\0b", "-1", "0", "1e9", "nan", "inf", "None", "[]", "{}", "${x}", "${oc.env:HOME}", "a=b", "=", "--"),
    *("-", "*", "~", ","),
)
SCORES, TINY = "@/runs/u/predictions/dev_seen.csv", "experiment=hateful_memes/text_bert_tiny"
LINES = (
    "check @/w --features @/w/features --json",
    "clean @/w out --near 4",
    "import @/formats/tsv out --detector x --dtype float16 --on-error skip",
    "export @/w/features out --format tsv",
    "convert @/weights/u.safetensors out model.heads=4 --vocabulary @/vocabulary.txt",
    "convert --inspect @/weights/u.pth",
    "predict @/runs/u --splits dev_seen --root @/w --out out --batch-size 3",
    "predict @/runs/c --image @/w/img/00001.png --text hello",
    "score @/w/img/00001.png --text hello --model @/runs/c --device cpu",
    "calibrate @/judged/dev_seen.csv --root @/judged --data hateful_memes --split dev_seen --samples 5",
    f"drift {SCORES} {SCORES}",
    f"evaluate {SCORES} --root @/w --split dev_seen --threshold 0.4 --samples 30",
    f"ensemble {SCORES} {SCORES} --out out.csv --method power --power 2 --weights 1,2",
    f"ensemble {SCORES} @/runs/c/predictions/dev_seen.csv --out out --method greedy --root @/w",
    f"extract @/w/img out {GRID} --grid 2x2 --batch 2 --workers 1 --shard 7",
    "ls experiment",
    "cp hateful_memes/uniter_tiny out",
    "vocabulary @/w out --size 600 --split train",
    "study status @/study.yaml --root @/w --out out --seeds 1 --limit 4",
    f"train {TINY} out=out root=@/w trainer.max_steps=1 data.batch_size=4 loggers=[] seed=1 optim.lr=1e-3",
    f"train {TINY} out=out root=@/w trainer.max_steps=1 data.batch_size=4 loggers=[] model.dropout=0.1",
)


@target("words", "cli", writes=("out", "out.csv"), weight=4)
def words(case: Case) -> list[str]:
    """Commands with a word that is odd, lost or in the way."""
    command = case.pick(*LINES)
    for _ in range(0 if case.whole else case.rng.choice((1, 1, 2))):
        at, word = case.rng.randrange(1, len(command)), case.rng.choice(WORDS)
        key, equals, _value = command[at].partition("=")
        match case.rng.randrange(4):
            case 0 if len(command) > 2:
                del command[at]
            case 1:
                command.insert(at, word)
            case _:
                command[at] = key + equals + word if equals else word
    return command
