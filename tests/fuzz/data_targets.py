"""Damaged data sets: annotations, answers, pictures, boxes, predictions, texts."""

import csv
import io
import json
import os
import pickle
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image
from tests.datasets.emoji_sources import emoji_sources
from tests.fuzz.arrays import npz, odd_record
from tests.fuzz.case import Case, target
from tests.fuzz.damage import (
    damage_any_json,
    damage_bytes,
    damage_cells,
    damage_json,
    damage_lines,
    damage_text,
    damage_values,
)
from tests.fuzz.seeds import GRID


@target(
    "annotations",
    "datasets.hateful_memes.records",
    "datasets.hateful_memes.split",
    "datasets.hateful_memes.views",
    "check",
    "cli.texts",
    weight=5,
)
def annotations(case: Case) -> list[str]:
    world = case.take("w")
    split = case.rng.choice(("train", "dev_seen", "dev_unseen", "test_seen"))
    case.spoil(world / f"{split}.jsonl", damage_lines, damage_lines, damage_text)
    return case.pick(
        "check w",
        "check w --json",
        "clean w out",
        "clean w out --near 4 --known --json",
        f"predict @/runs/u --root w --splits {split} --out out",
        f"vocabulary w out --split {split} --size 400",
        "evaluate @/runs/u/predictions/dev_seen.csv --root w --split dev_seen --samples 20",
    )


@target("training data", "train.loggers", weight=0.5)
def training_data(case: Case) -> list[str]:
    world = case.take("w")
    case.spoil(world / f"{case.rng.choice(('train', 'dev_seen'))}.jsonl", damage_lines, damage_text)
    words = "root=w out=out trainer.max_steps=1 data.batch_size=4 loggers=[]"
    names = ("text_bert_tiny", "uniter_tiny")
    return case.pick(*(f"train experiment=hateful_memes/{name} {words}" for name in names))


@target("image lists", "datasets.json_records", "datasets.lxmert.split", weight=0.5)
def image_lists(case: Case) -> list[str]:
    world = case.take("lx")
    name = case.rng.choice(("mscoco_train", "mscoco_minival", "all_ans"))
    case.spoil(world / f"lxmert/{name}.json", damage_any_json, damage_bytes, damage_text)
    return case.pick("check lx", "check lx --splits mscoco_train --json")


@target(
    "captions and corpora",
    "datasets.caption_lines",
    "datasets.conceptual_captions.records",
    "datasets.conceptual_captions.split",
    "datasets.corpus.passages",
    weight=0.5,
)
def captions_and_corpora(case: Case) -> list[str]:
    if case.chance(0.5):
        world = case.take("cc")
        name = case.rng.choice(("train_frcnn.json", "tables/Validation_GCC-1.1.0-Validation.tsv"))
        case.spoil(world / name, damage_lines, damage_bytes, damage_text)
        return [f"check {'cc/tables' if '/' in name else 'cc'} --data conceptual_captions"]
    world = case.take("corpus")
    case.spoil(world / case.rng.choice(("wiki.doc", "held.txt.gz")), damage_bytes, damage_text)
    return case.pick("check corpus --data corpus", "check corpus --data corpus --splits held --json")


@target("answers", "datasets.hateful_memes.records", "evaluate")
def answers(case: Case) -> list[str]:
    world = case.take("w")
    case.spoil(world / "test_seen.answers.jsonl", damage_lines, damage_text)
    return case.pick("evaluate @/runs/u/predictions/test_seen.npz --root w --split test_seen --samples 20")


def _coded(size: tuple[int, int] = (64, 48), *, form: str = "TIFF", mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, form)
    return out.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, data: bytes, *more: bytes) -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _drawn(name: str) -> bytes:
    """A picture of another kind, or one that claims to be."""
    text = _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 << 20))) if name == "text bomb" else b""
    match name.split():
        case "form", form:
            return _coded(form=form)
        case "mode", mode:
            return _coded(mode=mode)
        case "sized", width, height:
            return _coded((int(width), int(height)), form="PNG")
        case "claims", width, height:
            return _png(int(width), int(height), zlib.compress(bytes(10_000_000)))
        case "text", "bomb":
            return _png(4, 4, b"", text)
        case "script", *_:
            return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n"
        case _:
            return b"<svg xmlns='http://www.w3.org/2000/svg'/>"


DRAWN = (
    *(f"form {form}" for form in ("JPEG", "GIF", "WEBP", "TIFF", "BMP", "ICO")),
    *(f"mode {mode}" for mode in ("1", "LA", "RGBA", "CMYK", "I", "F")),
    *("sized 1 1", "sized 5000 1", "claims 60000 60000", "claims 2147483647 2147483647", "claims 0 0"),
    *("text bomb", "script", "drawing"),
)


def _bind(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


PLACES: dict[str, Callable[[Path], object]] = {
    "named pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "socket": _bind,
    "empty file": Path.touch,
    "nothing": lambda path: None,
}


def _replace(case: Case, path: Path) -> None:
    """Put something else in the place of a file."""
    if not case.whole:
        path.unlink()
        name = case.rng.choice(sorted(PLACES))
        PLACES[name](path)
        case.notes.append(f"{name} as {path.name}")


@target("pictures", "images", "datasets.hashes", "detect.listing", weight=5)
def pictures(case: Case) -> list[str]:
    world = case.take("w")
    path = case.rng.choice(sorted((world / "img").iterdir()))
    match case.rng.randrange(4):
        case 0:
            _replace(case, path)
        case 1:
            case.spoil(path, damage_bytes)
        case _:
            name = case.rng.choice(DRAWN)
            drawn = _drawn(name)
            case.put(path, name, damage_bytes(drawn, case.rng) if case.chance(0.3) else drawn)
    name = path.relative_to(case.folder)
    return case.pick(
        "check w",
        "clean w out --near 3",
        f"extract w/img out {GRID}",
        f"extract w/img out {GRID} --bad skip",
        f"score {name} --text a --model @/runs/c",
        f"predict @/runs/c --image {name} --text a",
        "predict @/runs/c --root w --splits dev_seen --out out",
    )


@target("places", "files", "cli.import_", "detect.listing", "text.tokenizer", weight=2)
def places(case: Case) -> list[str]:
    """A named pipe, a device, a folder, a dangling link, or nothing, wherever a file is expected."""
    case.take("w")
    scores, evaluate = "a_dev_seen.csv", "evaluate a_dev_seen.csv --root w --split dev_seen --samples 9"
    commands = {
        "w/train.jsonl": ("check w", "clean w out", "vocabulary w out --size 400"),
        "w/dev_seen.jsonl": ("predict @/runs/u --root w --splits dev_seen --out out", evaluate),
        scores: (evaluate, f"ensemble {scores} {scores} --out out.csv"),
        "in.tsv": ("import in.tsv out",),
        "names.txt": ("import @/formats/tsv out --classes names.txt",),
        "u.pth": ("convert --inspect u.pth",),
        "vocabulary.txt": ("convert @/weights/u.pth out model.heads=4 --vocabulary vocabulary.txt",),
        "boxes.jsonl": (f"extract w/img out {GRID} --given boxes.jsonl",),
        "list.txt": (f"extract list.txt out {GRID}",),
        "study.yaml": ("study status study.yaml --root w --out out --limit 2",),
        "bundle/bundle.yaml": ("predict bundle --root w --splits dev_seen --out out",),
    }
    seeds = {scores: "runs/u/predictions/dev_seen.csv", "in.tsv": "formats/tsv", "u.pth": "weights/u.pth"}
    for name in (scores, "in.tsv", "names.txt", "u.pth", "vocabulary.txt", "boxes.jsonl", "list.txt"):
        case.take(seeds.get(name, name), name)
    case.take("study.yaml")
    case.take("runs/u/bundle")
    path = case.rng.choice(sorted(commands))
    _replace(case, case.folder / path)
    return case.pick(*commands[path])


@target("boxes", "data.boxes", weight=1.5)
def boxes(case: Case) -> list[str]:
    case.spoil(case.take("boxes.jsonl"), damage_lines, damage_text)
    return case.pick(
        "check @/w --features boxes.jsonl",
        f"extract @/w/img out {GRID} --given boxes.jsonl",
        "predict @/runs/p --features boxes.jsonl --root @/w --splits dev_seen --out out",
    )


def _of_predictions(case: Case, name: str) -> list[str]:
    files = case.rng.choice(("{0} {1}", "{1} {0}")).format(name, "@/runs/c/predictions/dev_seen.csv")
    data = "--root @/w --split dev_seen --samples 20"
    means, fits = ("mean", "rank", "power", "geometric", "logit"), ("greedy", "simplex", "loop")
    return case.pick(
        f"evaluate {files} {data}",
        f"evaluate {name} {data} --json",
        f"ensemble {files} --out out.csv --method {case.rng.choice(means)}",
        f"ensemble {files} --out out.csv --compat",
        f"ensemble {files} --out out.npz",
        f"ensemble {files} --out out --method {case.rng.choice(fits)} --root @/w --steps 30",
    )


@target(
    "csv predictions", "ensemble.files", "datasets.binary_csv", writes=("out", "out.csv", "out.npz"), weight=4
)
def csv_predictions(case: Case) -> list[str]:
    name = case.rng.choice(("a_dev_seen.csv", "a_dev_seen.csv", "[red]_dev_seen.csv"))
    cells = damage_cells(b",")
    case.spoil(case.take("runs/u/predictions/dev_seen.csv", name), cells, cells, damage_text)
    return _of_predictions(case, name)


@target("npz predictions", "predictions", "cli.data", writes=("out", "out.csv", "out.npz"), weight=3)
def npz_predictions(case: Case) -> list[str]:
    path = case.take("runs/u/predictions/dev_seen.npz", "a_dev_seen.npz")
    with np.load(path) as arrays:
        record = {name: arrays[name] for name in arrays.files}
    match case.rng.randrange(4):
        case 0:
            case.spoil(path, damage_bytes)
        case 1:
            head = json.dumps(damage_values(json.loads(str(record["header"])), case.rng))
            case.put(path, "damaged header", npz({**record, "header": np.array(head)}))
        case 2:
            name, odd = odd_record(record, case.rng)
            case.put(path, name, npz(odd))
        case _:
            case.spoil_archive(path, case.hostile_pickle()[1])
    return _of_predictions(case, path.name)


@target("state of clean", "datasets.hateful_memes.views", "datasets.hashes")
def state_of_clean(case: Case) -> list[str]:
    case.take("w")
    name = case.rng.choice(("report.json", "hashes.json", "train.jsonl"))
    case.spoil(case.take("cleaned", "out") / name, damage_any_json)
    return case.pick("clean w out")


@target("tables", "datasets.columns", "datasets.examples", "datasets.table", weight=3)
def tables(case: Case) -> list[str]:
    """The annotations of the miniature as tables of every kind."""
    folder = case.folder / "t"
    folder.mkdir()
    rows = [json.loads(line) for line in (case.take("w") / "train.jsonl").read_text().splitlines()]
    (case.folder / "w/img").rename(folder / "img")
    suffix = case.rng.choice((".csv", ".tsv", ".json", ".jsonl", ".parquet"))
    path, frame = folder / f"train{suffix}", {name: [row[name] for row in rows] for name in rows[0]}
    if suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            cells = csv.DictWriter(file, [*frame], delimiter="\t" if suffix == ".tsv" else ",")
            cells.writeheader()
            cells.writerows(rows)
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(frame), path)
    else:
        lines = [json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]")
    case.spoil(path, damage_bytes if suffix == ".parquet" else damage_text)
    words = "model=concat_bert_tiny data=table root=t data.columns.image=img data.columns.text=text"
    more = "data.validate.split=train"  # there is no other split
    return case.pick(
        f"check t/train{suffix}",
        f"train {words} data.columns.label=label {more} out=out trainer.max_steps=1 loggers=[]",
    )


@target("sentences", "datasets.sentences")
def sentences(case: Case) -> list[str]:
    folder = case.take("m3") / "data" / "task1"
    (folder.parent / "out.txt").write_text("ein Satz\n" * 5)
    names = ("raw/val.de.gz", "raw/val.en.gz", "image_splits/val.txt", "tok/val.lc.norm.tok.de", "../out.txt")
    case.spoil(folder / case.rng.choice(names), damage_bytes, damage_text)
    asked = "--data multi30k --set task=translation"
    return case.pick(
        f"check m3 --splits val {asked} --set tokenized={case.rng.choice(('true', 'false'))}",
        "vocabulary m3 out --data multi30k --split val --set lang=en,de --cased --size 400",
        "train model=text_bert_tiny data=multi30k root=m3 data.train.split=val out=out trainer.max_steps=1 "
        "loggers=[] trainer.monitor=loss",
    )


@target("emoji", "datasets.emoji.emojibase", "datasets.emoji.split", weight=0.3)
def emoji(case: Case) -> list[str]:
    (case.folder / "made").mkdir()
    sources = emoji_sources(case.folder / "made")
    lines = [
        {"id": key, "image": f"img/{key}.png", "split": split, "names": {"en": "a"}, "tags": {"en": ["b"]}}
        for key, split in (("1F600", "train"), ("1F601", "val"), ("1F602", "test"))
    ]
    records = case.folder / "made" / "emoji.jsonl"
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    case.spoil(sources["emojibase"], damage_bytes)
    case.spoil(records, damage_lines, damage_text)
    return case.pick(
        f"world out --data emoji --size 40 --emojibase made/emojibase.tgz --font {sources['font']}",
        "vocabulary made out --data emoji --split train --size 400",
    )


@target("words", "datasets.sentences", "evaluate")
def words(case: Case) -> list[str]:
    root = case.take("ml")
    (root / "system.txt").write_text("ein blaues schiff\n" * 99)
    references = "2018evaluation/MLTreferences/ENDE_MLTD_test2018.txt"
    names = ("ENDE_MLTD_formatted.txt", "human2018.de", "image_splits/val.txt", "MLT_vocab.txt", references)
    case.spoil(root / case.rng.choice((*names, "system.txt")), damage_bytes, damage_text)
    return case.pick(
        "check ml --splits val,human_2018",
        "evaluate ml/system.txt --data mlt --root ml --split references_2018 --samples 9",
        "answers ml out --data mlt --minimum 1",
        "train model=text_bert_tiny data=mlt root=ml out=out trainer.max_steps=1 loggers=[]",
    )


@target("statements", "datasets.nlvr2.records", weight=2)
def statements(case: Case) -> list[str]:
    """Annotations, subsets, categories and official predictions of NLVR2."""
    world, predictions = case.take("n2"), case.folder / "dev.csv"
    rows = [json.loads(line) for line in (world / "dev.json").read_text().splitlines()]
    predictions.write_text("".join(f"{row['identifier']},{row['label']}\n" for row in rows))
    if case.chance(0.3):  # LXMERT's list instead of lines
        (world / "dev.json").write_text(json.dumps([row | {"sent": row["sentence"]} for row in rows]))
    names = ("dev.json", "dev.json", "balanced/balanced_dev.json", "annotated_dev_examples.txt")
    path = case.rng.choice([*(world / name for name in names), predictions])
    case.spoil(path, *([damage_lines] if path.suffix == ".json" else []), damage_text)
    words = (
        "model=text_bert_tiny data=nlvr2 root=n2 data.train.split=dev out=out trainer.max_steps=1 loggers=[]"
    )
    return case.pick(
        "check n2 --splits dev",
        "evaluate dev.csv --data nlvr2 --root n2 --split dev --samples 9",
        f"train {words} data.batch_size=4",
    )


@target(
    "questions",
    "datasets.json_records",
    "datasets.questions",
    "datasets.vqa.records",
    "datasets.gqa.split",
    "datasets.answer_table",
    "cli.answers",
    weight=3,
)
def questions(case: Case) -> list[str]:
    """Questions, annotations, answer tables and server files of VQA v2 and GQA."""
    name = case.rng.choice(("vqa", "gqa"))
    root = case.take(name)
    split, given = ("minival", "minival_predict.json") if name == "vqa" else ("val", "val_predict.json")
    server = case.take(f"{name}-{given}", given)
    files = {
        "vqa": (
            "v2_OpenEnded_mscoco_val2014_questions.json",
            "v2_mscoco_val2014_annotations.json",
            "minival.json",
            "trainval_label2ans.json",
        ),
        "gqa": ("val_balanced_questions.json", "val_choices.json", "val_all_questions.json"),
    }[name]
    path = case.rng.choice([*(root / file for file in files), server])
    case.spoil(path, damage_json, damage_json, damage_text)
    return case.pick(
        f"check {name} --data {name} --splits val",
        f"evaluate {given} --data {name} --root {name} --split {split} --samples 9",
        f"answers {name} out --data {name} --split val --minimum 1",
        f"train model=text_bert_tiny data={name} root={name} data.train.split=val data.validate.split=val "
        "out=out trainer.max_steps=1 data.batch_size=4 loggers=[]",
    )


@target("choices", "datasets.vcr.records", "datasets.vcr.boxes", weight=2)
def choices(case: Case) -> list[str]:
    """Questions, metadata and the leaderboard file of VCR."""
    world, scores = case.take("vcr_q2ar"), case.folder / "val.csv"
    keys = [json.loads(line)["annot_id"] for line in (world / "val.jsonl").read_text().splitlines()]
    header = ["annot_id", *(f"answer_{number}" for number in range(4))]
    scores.write_text("".join(",".join(row) + "\n" for row in (header, *([key, *"1000"] for key in keys))))
    metadata = sorted(world.glob("vcr1images/*/*.json"))[0]
    path = case.rng.choice((world / "val.jsonl", metadata, scores))
    damage = {".jsonl": damage_lines, ".json": damage_any_json, ".csv": damage_cells(b",")}[path.suffix]
    case.spoil(path, damage, damage, damage_text)
    train = f"model=end_to_end_tiny data=vcr root={world.name} data.train.split=val data.cells=4 out=out"
    return case.pick(
        "check vcr_q2ar --data vcr --splits val",
        "evaluate val.csv --data vcr --root vcr_q2ar --split val --samples 9",
        f"train {train} trainer.max_steps=1 data.batch_size=2 loggers=[] processor.prepare.least=32",
    )


@target("references", "datasets.refcoco.records", weight=2)
def references(case: Case) -> list[str]:
    """The pickle, COCO's annotations, detections and results of RefCOCO."""
    world, results = case.take("refcoco"), case.folder / "val.json"
    refs = pickle.loads((world / "refcoco/refs(unc).p").read_bytes())
    named = [
        (ref["ref_id"], sentence) for ref in refs if ref["split"] == "val" for sentence in ref["sent_ids"]
    ]
    box = [0, 0, 9, 9]
    results.write_text(json.dumps([{"ref_id": ref, "sent_id": sent, "box": box} for ref, sent in named]))
    path = case.rng.choice((world / "refcoco/refs(unc).p", world / "refcoco/instances.json", results))
    case.spoil(path, *((damage_bytes,) if path.suffix == ".p" else (damage_any_json, damage_text)))
    words = "root=refcoco features=refcoco/features out=out trainer.max_steps=1 data.batch_size=4 loggers=[]"
    return case.pick(
        "check refcoco --data refcoco --splits val",
        "evaluate val.json --data refcoco --root refcoco --split val --samples 9",
        f"train model=vlbert_tiny data=refcoco {words}",
    )


@target("texts", "cli.texts", "text.fasttext", weight=0.7)
def texts(case: Case) -> list[str]:
    path = case.folder / "texts.txt"
    path.write_text("".join(f"a line of words {n}\n" for n in range(50)))
    case.spoil(path, damage_text)
    return case.pick(
        "vocabulary texts.txt out --size 100",
        "fasttext texts.txt out --dim 5 --min-count 1 --bucket 100",
    )
