"""The whole inputs that are damaged later: a miniature data set, runs, stores, checkpoints, a study."""

import json
import os
import pickle
import shutil
import struct
from hashlib import sha256
from pathlib import Path
from typing import Any

STUDY = """name: mini
runs: {train: [dev_seen, test_seen]}
dev: dev_seen
features: {small: features}
vocabularies: {uncased: vocabulary.txt}
ensemble: {method: greedy, compat: false}
overrides: [trainer.max_steps=1]
families:
  U:
    experiment: hateful_memes/uniter_tiny
    vocabulary: uncased
    scores: probability
    overrides: [data.batch_size=4]
    members:
      U1: {seed: 1, features: small}
"""
SHORT = "trainer.max_steps=2 root=w data.batch_size=4 loggers=[] progress=false"
GRID = "--detector grid --backbone resnet_tiny --size 32 --weights random --device cpu"
RUNS = {"u": "uniter_tiny", "e": "ernievil_tiny", "c": "concat_bert_tiny", "p": "end_to_end_tiny"}


def build(lab: Path) -> None:
    """Make all seeds, in a process of its own: what it starts must not be forked afterwards."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            lab.mkdir(parents=True)
            os.chdir(lab)
            with open("built.txt", "w") as log:
                os.dup2(log.fileno(), 1)
            _build(lab)
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise SystemExit(f"the seeds of the tests could not be made; see {lab}")


def call(*words: object) -> None:
    from diptych.cli import main

    if code := main([str(word) for word in words]):
        raise SystemExit(f"{words} came to {code}")


def _build(lab: Path) -> None:
    from tests.features.originals import ORIGINALS

    from diptych.features import FeatureStore

    call("world", "w", "--size", 40, "--seed", 5)
    call("world", "lx", "--data", "lxmert", "--size", 20, "--seed", 5)
    call("world", "cc", "--data", "conceptual_captions", "--size", 20, "--seed", 5)
    call("world", "corpus", "--data", "corpus", "--size", 20, "--seed", 5)
    for name, experiment in RUNS.items():
        call("train", f"experiment=hateful_memes/{experiment}", f"out=runs/{name}", *SHORT.split())
    for name in ("u", "c"):
        call("predict", f"runs/{name}", "--splits", "dev_seen,test_seen", "--root", "w", "--device", "cpu")
    _judged(Path("judged"))
    chosen = ("--model", "runs/u", "--root", "w", "--split", "dev_seen", "--device", "cpu")
    call("memory", "add", "memory", *chosen)
    call("memory", "fit", "memory", *chosen, "--folds", 2)
    store = FeatureStore("w/features")
    items = [(key, store[key]) for key in store]
    Path("formats").mkdir()
    for form, write in ORIGINALS.items():
        write(Path("formats", form), items)
    for name in ("u", "e"):
        call("convert", "--back", f"runs/{name}", f"{name}.safetensors")
    shutil.copy("runs/u/bundle/files/vocabulary.txt", "vocabulary.txt")
    _checkpoints(Path("weights"))
    lines = ({"id": f"{n:05d}", "boxes": [[1, 2, 30, 20], [0, 0, 9, 9.5]]} for n in range(42))
    Path("boxes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("names.txt").write_text("".join(f"thing {n}\n" for n in range(40)))
    Path("list.txt").write_text("".join(f"{one}\n" for one in sorted((lab / "w/img").iterdir())[:6]))
    Path("study.yaml").write_text(STUDY)
    call("study", "run", "study.yaml", "--root", "w", "--out", "st", "--device", "cpu")
    call("world", "n2", "--data", "nlvr2", "--size", 40)
    call("world", "m3", "--data", "multi30k", "--size", 40)
    call("world", "ml", "--data", "mlt", "--size", 40)
    for name, split in (("vqa", "minival"), ("gqa", "val")):
        call("world", name, "--data", name, "--size", 40)
        words = f"model=text_bert_tiny data={name} root={name} out=runs/{name}".split()
        call("train", *words, *(word for word in SHORT.split() if word != "root=w"))
        call("predict", f"runs/{name}", "--splits", split, "--device", "cpu")
        shutil.copy(f"runs/{name}/predictions/{split}_predict.json", f"{name}-{split}_predict.json")
    for name in ("vcr_q2ar", "refcoco"):
        call("world", name, "--data", name, "--size", 40)
    call("fasttext", "w", "vectors.bin", "--dim", 4, "--min-count", 1, "--bucket", 100)
    call("clean", "w", "cleaned")
    _read_words(lab / "w/img/00001.png")
    call("extract", "w/img", "extracted", *GRID.split(), "--shard", 9)


def _read_words(picture: Path) -> None:
    """The words of one picture, as if the engine had read them, and the list that names the picture."""
    from diptych.detect.rapid import RapidReader

    Path("words.txt").write_text(f"{picture}\n")
    line = {"text": "a", "box": [0.0, 0.0, 9.0, 5.0], "score": 1.0, "height": 5.0}
    record = {
        "reader": RapidReader().identity(),
        "sha256": sha256(picture.read_bytes()).hexdigest(),
        "id": picture.stem,
        "img": f"../w/img/{picture.name}",
        "text": "a",
        "lines": [{**line, "scene": False, "turned": False}],
    }
    Path("words.jsonl").write_text(json.dumps(record) + "\n")


def _judged(folder: Path) -> None:
    """Labels and scores of 90 memes, costs, groups, and a policy for the run c."""
    from diptych.calibrate import Map, Policy, Rule
    from diptych.predict import bundle_checksum

    folder.mkdir()
    numbers = range(90)
    lines = ({"id": f"{n:05d}", "img": f"img/{n}.png", "label": n % 2, "text": "a"} for n in numbers)
    (folder / "dev_seen.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scores = "".join(f"{n:05d},{(n * 37 % 90 + 20 * (n % 2)) / 120:.4f}\n" for n in numbers)
    (folder / "dev_seen.csv").write_text("id,proba\n" + scores)
    (folder / "tags.csv").write_text("id,tag\n" + "".join(f"{n:05d},{'ab'[n % 3 % 2]}\n" for n in numbers))
    (folder / "costs.yaml").write_text("miss: 10\nwrong_block: 4\nreview: 1\nreviewer_misses: 0.1\n")
    _cascade(folder, scores)
    Policy(
        labels={"hateful": Rule(map=Map(method="platt"), allow=0.3, block=0.6, positives=45, negatives=45)},
        model=bundle_checksum(Path("runs/c")),
        dev={"split": "dev_seen", "checksum": "x", "examples": 90, "scores": "as predicted"},
        made="2026-01-02",
        version="0.1.0",
    ).save(folder / "policy.yaml")


def _cascade(folder: Path, scores: str) -> None:
    """Answers of another program, two members, and a cascade of them."""
    rows = [line.split(",") for line in scores.splitlines()]
    answers = ({"id": key, "p": float(p), "price": 0.01, "model": "guard"} for key, p in rows)
    (folder / "vlm.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))
    (folder / "other.csv").write_text(
        "id,proba\n" + "".join(f"{key},{float(p) ** 2:.4f}\n" for key, p in rows)
    )
    (folder / "members.yaml").write_text(
        "members:\n- {name: a, predictions: '{split}.csv', money: 1.0}\n"
        "- {name: b, predictions: other.csv, money: 2.0}\n"
    )
    stage = "- {name: %s, model: null, cost: %s, allow: %s, block: %s}\n"
    (folder / "cascade.yaml").write_text(
        "diptych_cascade: 1\nmade: '2026-01-02'\ndiptych: 0.1.0\nunit: money\npositive: hateful\n"
        "dev: {split: dev_seen, checksum: x, examples: 90, scores: as predicted}\n"
        "max_miss: 0.05\nmax_wrong_block: null\ndelta: 0.1\nmembers:\n"
        + stage % ("a", "1.0", "0.2", "0.7")
        + stage % ("b", "2.0", "0.3", "0.29")
    )


def _checkpoints(folder: Path) -> None:
    import numpy as np
    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    weights = load_file("u.safetensors")
    shutil.copy("u.safetensors", folder / "u.safetensors")
    torch.save({"model": weights, "epoch": 3}, folder / "u.pth")
    torch.save(weights, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    np.savez(folder / "u.npz", **{name: one.numpy() for name, one in weights.items()})
    _shards(folder / "hf", weights, save_file)
    _paddle(folder / "paddle" / "params", load_file("e.safetensors"))
    _detector(folder / "detector.pkl")
    _backbone(folder / "backbone")


def _shards(folder: Path, weights: dict[str, Any], save_file: Any) -> None:
    folder.mkdir()
    names = list(weights)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, half in halves.items():
        save_file({name: weights[name] for name in half}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, half in halves.items() for name in half}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": 4, "hidden_size": 48}))
    shutil.copy("vocabulary.txt", folder / "vocab.txt")


def varint(number: int) -> bytes:
    """As protobuf writes whole numbers."""
    head, rest = number & 0x7F, number >> 7
    return bytes([head | 0x80]) + varint(rest) if rest else bytes([head])


def variable(about: bytes, body: bytes, *, levels: int = 0, length: int | None = None) -> bytes:
    """A file of Paddle: header, description, numbers."""
    return struct.pack("<IQIi", 0, levels, 0, len(about) if length is None else length) + about + body


def _paddle(folder: Path, weights: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    for name, one in weights.items():
        about = b"\x08\x05" + b"".join(b"\x10" + varint(size) for size in one.shape)
        (folder / name).write_bytes(variable(about, one.float().numpy().tobytes()))


def _detector(path: Path) -> None:
    """Weights of the smallest detector, as py-bottom-up-attention publishes them."""
    from diptych.convert.detector import DETECTOR, WITHOUT_ATTRIBUTES
    from diptych.convert.rules import restore
    from diptych.detect.faster_rcnn import build_detector

    state = build_detector("tiny").state_dict()
    rules = DETECTOR if any(name.startswith("predictor.attributes") for name in state) else WITHOUT_ATTRIBUTES
    named = restore(state, rules)
    arrays = {name: one.numpy() for name, one in named.items() if not name.endswith("num_batches_tracked")}
    path.write_bytes(pickle.dumps({"model": arrays}, protocol=2))


def _backbone(folder: Path) -> None:
    """A folder of transformers: a small ResNet, whose missing weights are random."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"}
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet", **sizes}))
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
