"""Damaged weights: what `convert` and `extract --weights` read; bundles."""

import io
import json
import os
import pickle
import zipfile
from typing import Any

from tests.fuzz.arrays import members, npz, odd_header, odd_record
from tests.fuzz.case import Case, target
from tests.fuzz.damage import damage_bytes, damage_json, damage_text
from tests.fuzz.hostile import damage_settings
from tests.fuzz.seeds import GRID, variable, varint
from tests.text.pieces import characters, model


def _convert(case: Case, source: str, heads: str = "model.heads=4") -> list[str]:
    return case.pick(
        f"convert --inspect {source}", f"convert {source} out {heads} --vocabulary @/vocabulary.txt"
    )


@target("safetensors", "convert.load", ".safetensors", weight=2)
def safetensors(case: Case) -> list[str]:
    path = case.take("weights/u.safetensors", "in")
    if case.chance(0.6):
        case.put(path, "damaged header", odd_header(path.read_bytes(), case.rng, damage_json))
    else:
        case.spoil(path, damage_bytes)
    return _convert(case, "in")


TORCH = (".bin", ".pt", ".pth", ".th", ".ckpt", ".model")


@target("torch bytes", "convert.load", *TORCH, weight=2)
def torch_bytes(case: Case) -> list[str]:
    path = case.take(f"weights/{case.rng.choice(('u.pth', 'legacy.pth'))}", f"in{case.rng.choice(TORCH)}")
    case.spoil(path, damage_bytes)
    return _convert(case, path.name)


@target("torch pickles", "convert.load", "torch_file", "pickle_machine", weight=3)
def torch_pickles(case: Case) -> list[str]:
    """Checkpoints that ask for code, in the old format and in the new."""
    path = case.take("weights/u.pth", "in.pth")
    name, body = case.hostile_pickle()
    match case.rng.randrange(4):
        case 0:
            case.put(path, name, body)
        case 1:
            legacy = (case.lab / "weights/legacy.pth").read_bytes()
            head = legacy[: legacy.index(b".", legacy.index(b"little_endian")) + 1]
            case.put(path, f"legacy {name}", head + body)
        case 2:
            held = members(path.read_bytes())
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w") as made:
                for member, content in held.items():
                    made.writestr(member, body if member.endswith("data.pkl") else content)
            case.put(path, f"zipped {name}", out.getvalue())
        case _:
            case.spoil_archive(path, body)
    return _convert(case, "in.pth")


@target("torch values", "convert.load", weight=2)
def torch_values(case: Case) -> list[str]:
    """What people really save beside weights, and tensors that hold none."""
    import torch

    path = case.take("weights/u.pth", "in.pth")
    if case.whole:
        return _convert(case, "in.pth")
    weights = torch.load(path, weights_only=True)["model"]
    key = case.rng.choice(sorted(weights))
    odd: dict[str, Any] = {
        "sparse": torch.eye(3).to_sparse(),
        "rows": torch.eye(3).to_sparse_csr(),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "meta": torch.empty(3, device="meta"),
        "number": torch.tensor(3.0),
        "nothing": torch.zeros(0, 4),
        "complex": torch.ones(3, dtype=torch.complex64),
        "half": weights[key].bfloat16(),
        "nan": torch.full_like(weights[key], float("nan")),
        "small type": weights[key].to(torch.float8_e5m2),
        "expanded": torch.ones(1).expand(1 << 33),
        "text": "x",
        "none": None,
        "list": [torch.ones(2)],
        "itself": weights,
    }
    name = case.rng.choice(sorted(odd))
    made: Any = {**weights, key: odd[name]} if case.rng.random() < 0.7 else odd[name]
    if case.rng.random() < 0.3:
        made = case.rng.choice(
            ({"state_dict": made}, {"model": {"model": made}}, [made], {"model": made, "args": object})
        )
    try:
        torch.save(made, path)
    except Exception:  # torch cannot keep everything
        torch.save({}, path)
    case.notes.append(f"{name} as {key}")
    return _convert(case, "in.pth")


@target("npz weights", "convert.load", "archives", ".npz")
def npz_weights(case: Case) -> list[str]:
    import numpy as np

    path = case.take("weights/u.npz", "in.npz")
    match case.rng.randrange(3):
        case 0:
            case.spoil(path, damage_bytes)
        case 1:
            with np.load(path) as arrays:
                name, record = odd_record({one: arrays[one] for one in arrays.files}, case.rng)
            case.put(path, name, npz(record))
        case _:
            case.spoil_archive(path, case.hostile_pickle()[1])
    return _convert(case, "in.npz")


@target("shards", "convert.load", "cli.convert", weight=1.5)
def shards(case: Case) -> list[str]:
    """A folder of Hugging Face's: settings, index, vocabulary, parts."""
    folder = case.take("weights/hf", "in")
    path = folder / case.rng.choice(
        ("config.json", "model.safetensors.index.json", "vocab.txt", "a.safetensors")
    )
    ways = {".json": damage_json, ".txt": damage_text, ".safetensors": damage_bytes}
    case.spoil(path, ways[path.suffix])
    return case.pick("convert --inspect in", "convert in out model.heads=4")


@target("paddle", "convert.paddle", weight=2)
def paddle(case: Case) -> list[str]:
    folder = case.take("weights/paddle", "in")
    path = case.rng.choice(sorted((folder / "params").iterdir()))
    odd = {
        "huge": variable(b"\x08\x05\x10" + varint(1 << 62), b"\0" * 16),
        "huge nothing": variable(b"\x08\x05\x10\x00\x10" + varint(1 << 70), b""),
        "negative": variable(b"\x08\x05\x10" + varint((1 << 64) - 1), b"\0" * 16),
        "kind": variable(b"\x08\x63\x10\x04", b"\0" * 16),
        "endless": variable(b"\x08\x05\x10" + b"\xff" * 1000, b"\0" * 16),
        "packed": variable(b"\x08\x05\x12" + varint(1 << 40), b"\0" * 16),
        "no sizes": variable(b"\x08\x05", b"\0" * 4),
        "many sizes": variable(b"\x08\x05" + b"\x10\x01" * 100, b"\0" * 4),
        "levels": variable(b"\x08\x05\x10\x04", b"\0" * 16, levels=(1 << 64) - 1),
        "length": variable(b"\x08\x05\x10\x04", b"\0" * 16, length=case.rng.choice((-1, 0, 2**31 - 1))),
        "truths": variable(b"\x08\x00\x10\x04", b"\x05\x06\x07\x08"),
    }
    if case.chance(0.6):
        name = case.rng.choice(sorted(odd))
        case.put(path, name, odd[name])
    else:
        case.spoil(path, damage_bytes)
    return _convert(case, "in", "model.text.heads=4 model.vision.heads=4 model.bridge.heads=4")


@target("detector", "convert.detector", "detect.extractor", ".pkl", weight=2)
def detector(case: Case) -> list[str]:
    import numpy as np

    path = case.take("weights/detector.pkl", "in.pkl")
    match case.rng.randrange(3):
        case 0:
            case.spoil(path, damage_bytes)
        case 1:
            case.put(path, *case.hostile_pickle())
        case _:
            arrays = pickle.loads(path.read_bytes())["model"]
            name, record = odd_record(arrays, case.rng)
            if case.chance(0.3):
                key = case.rng.choice(sorted(arrays))
                name, record = f"zeros as {key}", {**arrays, key: np.full_like(arrays[key], np.nan)}
            case.put(path, name, pickle.dumps({"model": record}, protocol=case.rng.randrange(6)))
    return case.pick(
        "extract @/list.txt out --detector tiny --boxes 4 --device cpu --workers 1 --weights in.pkl"
    )


@target("backbone", "detect.extractor", "detect.grid", weight=0.3)
def backbone(case: Case) -> list[str]:
    """A folder of transformers with code of its own."""
    folder = case.take("weights/backbone", "in")
    (folder / "own.py").write_text(f"open({str(case.marker)!r}, 'w')\nclass Model: ...\nclass Config: ...\n")
    settings = json.loads((folder / "config.json").read_text())
    own = {"auto_map": {"AutoModel": "own.Model", "AutoConfig": "own.Config"}}
    odd = {
        "own model": {**settings, **own},
        "own kind": {**settings, **own, "model_type": "mine"},
        "another's": {
            **settings,
            "auto_map": {"AutoModel": "nobody/nothing--own.Model"},
            "model_type": "mine",
        },
    }
    if case.chance(0.6):
        name = case.rng.choice(sorted(odd))
        case.put(folder / "config.json", name, json.dumps(odd[name]).encode())
    elif case.chance(0.5):
        name, body = case.hostile_pickle()
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(body)
        case.notes.append(name)
    else:
        case.spoil(folder / "config.json", damage_json)
    return case.pick(f"extract @/list.txt out {GRID.replace('resnet_tiny', 'transformers:in')}")


TRAIN = "root=@/w out=out trainer.max_steps=1 data.batch_size=4 loggers=[]"


@target("vocabulary", "text.tokenizer", "cli.convert")
def vocabulary(case: Case) -> list[str]:
    case.spoil(case.take("vocabulary.txt"), damage_text)
    training = f"train experiment=hateful_memes/text_bert_tiny vocabulary=vocabulary.txt {TRAIN}"
    converting = "convert @/weights/u.safetensors out model.heads=4 --vocabulary vocabulary.txt"
    return case.pick(converting, *(() if case.whole else (training,)))


@target("byte pairs", "text.bpe")
def byte_pairs(case: Case) -> list[str]:
    merges = case.folder / "merges.txt"
    merges.write_text("#version: 0.2\nt h\nth e</w>\nr e\nre d</w>\n", encoding="utf-8")
    case.spoil(merges, damage_text, damage_bytes)
    text = "processor.text._target_=diptych.text.BytePair ~processor.text.lowercase +processor.text.fix=none"
    return case.pick(f"train experiment=hateful_memes/clip_linear_tiny {text} vocabulary=merges.txt {TRAIN}")


@target("sentence pieces", "text.piece_files")
def sentence_pieces(case: Case) -> list[str]:
    names = ["<pad>", "</s>", "<unk>", "\u2581", *"aderth"]
    learned = [(name, -1.0) for name in names]
    path = case.folder / case.rng.choice(("spiece.model", "tokenizer.json"))
    if path.suffix == ".model":
        path.write_bytes(model(learned, characters=characters("A", "a")))
        case.spoil(path, damage_bytes)
    else:
        body = {"type": "Unigram", "unk_id": 2, "vocab": learned}
        path.write_text(json.dumps({"model": body, "added_tokens": []}), encoding="utf-8")
        case.spoil(path, damage_json, damage_text)
    text = "processor.text._target_=diptych.text.SentencePiece ~processor.text.lowercase"
    return case.pick(f"train experiment=hateful_memes/clip_linear_tiny {text} vocabulary={path.name} {TRAIN}")


@target("sentence vectors", "text.fasttext")
def sentence_vectors(case: Case) -> list[str]:
    case.spoil(case.take("vectors.bin"), damage_bytes)
    return case.pick(f"train experiment=hateful_memes/text_fasttext_tiny fasttext.path=vectors.bin {TRAIN}")


def _use(case: Case, run: str) -> list[str]:
    back = () if run == "c" else ("convert --back in out",)  # no other program has its weights
    return case.pick(
        "predict in --root @/w --splits dev_seen --out out",
        "score @/w/img/00001.png --text a --model in --features @/w/features",
        *back,
    )


@target("bundle settings", "bundle", "cli.predict", weight=5)
def bundle_settings(case: Case) -> list[str]:
    run = case.rng.choice("uec")
    path = case.take(f"runs/{run}/bundle", "in") / "bundle.yaml"
    case.spoil(path, damage_settings(case.marker))
    return _use(case, run)


@target("bundle files", "bundle", "weights", weight=2)
def bundle_files(case: Case) -> list[str]:
    folder = case.take("runs/u/bundle", "in")
    path = case.rng.choice((folder / "weights.safetensors", folder / "files/vocabulary.txt"))
    if case.chance(0.2):
        path.unlink()
        case.rng.choice((lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), path.mkdir))()
        case.notes.append(f"no file at {path.name}")
    elif path.suffix == ".txt":
        case.spoil(path, damage_text)
    elif case.chance(0.5):
        case.put(path, "damaged header", odd_header(path.read_bytes(), case.rng, damage_json))
    else:
        case.spoil(path, damage_bytes)
    return _use(case, "u")
