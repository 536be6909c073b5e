"""The rules of Vilio on memes made for them; files as they were before and after."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.cli import main
from diptych.datasets import HatefulMemes
from diptych.datasets.hashes import Fingerprint
from diptych.datasets.hateful_memes import Meme
from diptych.datasets.hateful_memes.views import BITS, KNOWN_BROKEN, KNOWN_DUPLICATES, clean, find_copies
from diptych.errors import ConfigError, FormatError

FILES = ("train.jsonl", "traindev.jsonl", "pretrain.jsonl", "report.json")


def meme(key: str, text: str = "hi", label: int | None = 0) -> Meme:
    return Meme(id=key, image=f"img/{key}.png", text=text, label=label)


def prints(**known: tuple[int, str]) -> dict[str, Fingerprint]:
    return {f"img/{key}.png": Fingerprint(*found) for key, found in known.items()}


def picture(path: Path, seed: int, *, size: tuple[int, int] = (40, 40)) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Memes `id: (split, picture, text, label)`; equal numbers mean equal pictures."""
    folder = tmp_path / "memes"
    rows = {
        1: ("train", 1, "pair", 0),
        2: ("train", 1, "pair", 0),
        3: ("train", 2, "conflict", 0),
        4: ("train", 2, "conflict", 1),
        5: ("train", 3, "triple", 0),
        6: ("train", 3, "triple", 0),
        7: ("train", 3, "triple", 0),
        8: ("train", 4, "leak", 1),
        9: ("train", 5, "other words", 1),
        10: ("train", 5, "than these", 1),
        1348: ("train", 6, "listed by hand", 0),
        63805: ("train", 7, "broken boxes", 0),
        11: ("dev_seen", 4, "leak", 1),
        12: ("dev_seen", 8, "both dev", 0),
        13: ("dev_unseen", 8, "both dev", 0),
        14: ("dev_unseen", 9, "new", 1),
        15: ("test_seen", 10, "test", None),
    }
    lines: dict[str, list[str]] = {}
    for key, (split, seed, text, label) in rows.items():
        picture(folder / f"img/{key:05}.png", seed)
        record = {"id": key, "img": f"img/{key:05}.png", "text": text}
        record |= {} if label is None else {"label": label}
        lines.setdefault(split, []).append(json.dumps(record))
    lines["dev_unseen"].insert(0, lines["dev_seen"][0])
    for split, records in lines.items():
        (folder / f"{split}.jsonl").write_text("\n".join(records) + "\n")
    return folder


def ids(folder: Path, split: str) -> list[int]:
    return [int(key) for key in HatefulMemes(folder, split).ids]


def test_views_hold_what_vilio_trains_on(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    report = clean(root, out)
    train = [2, 3, 4, 5, 6, 7, 9, 10, 1348, 63805, 13, 14]
    assert ids(out, "train") == train
    assert ids(out, "traindev") == [*train, 11, 12]
    assert ids(out, "pretrain") == [*ids(root, "train"), 11, 12, 13, 14]
    assert {d.reason: d.ids for d in report.decisions} == {
        "copy": ("8", "11"),
        "copy with another label, kept": ("3", "4"),
        "copies in a group of 3, kept": ("5", "6", "7"),
        "copy, kept in dev": ("12", "13"),
    }
    assert [d.dropped for d in report.decisions if d.reason == "copy"] == [("1",), ("8",)]
    assert report.given == {"train": 12, "dev_seen": 2, "dev_unseen": 2}
    assert report.views == {"train": 12, "traindev": 14, "pretrain": 16}


def test_ids_found_by_hand_go_when_asked(root: Path, tmp_path: Path) -> None:
    assert (len(KNOWN_DUPLICATES), len(KNOWN_BROKEN)) == (34, 4)
    clean(root, tmp_path / "clean", known=True)
    assert ids(tmp_path / "clean", "train") == [2, 3, 4, 5, 6, 7, 9, 10, 63805, 13, 14]
    assert ids(tmp_path / "clean", "pretrain") == [key for key in [*ids(root, "train"), 11, 12, 13, 14]
                                                  if key != 63805]  # fmt: skip


def test_the_result_is_a_data_set_and_the_source_is_as_it_was(root: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    clean(root, tmp_path / "clean")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert ids(tmp_path / "clean", "test_seen") == [15]
    assert not (tmp_path / "clean" / "dev_unseen.jsonl").exists()
    images = HatefulMemes(tmp_path / "clean", "traindev").images
    assert all(path.is_file() for path in images.values())
    assert (root / "train.jsonl").read_text().splitlines()[1] == json.dumps(
        {"id": 2, "img": "img/00002.png", "text": "pair", "label": 0}
    )


def test_a_second_run_changes_nothing(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    first = clean(root, out)
    states = {name: (out / name).stat().st_mtime_ns for name in (*FILES, "hashes.json")}
    second = clean(root, out)
    assert (first.hashed, first.changed, second.hashed, second.changed) == (16, True, 0, False)
    assert {name: (out / name).stat().st_mtime_ns for name in states} == states
    assert first.decisions == second.decisions
    again = clean(out, tmp_path / "again", cache=out / "hashes.json")
    assert again.hashed == 0  # the links lead to the same pictures


def test_only_changed_pictures_are_hashed_again(root: Path, tmp_path: Path) -> None:
    clean(root, tmp_path / "one")
    picture(root / "img" / "00002.png", 77)
    os.utime(root / "img" / "00003.png", ns=(1, 1))
    report = clean(root, tmp_path / "two", cache=tmp_path / "one" / "hashes.json")
    assert report.hashed == 2
    assert "1" in HatefulMemes(tmp_path / "two", "train").ids


def test_other_results_are_kept(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    clean(root, out)
    before = {name: (out / name).read_bytes() for name in FILES}
    with pytest.raises(ConfigError, match=r"clean .*report\.json, train\.jsonl, traindev\.jsonl,"):
        clean(root, out, near=3)
    assert {name: (out / name).read_bytes() for name in FILES} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "traindev.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match=r"mine .* traindev\.jsonl, "):
        clean(root, tmp_path / "mine")
    assert not (tmp_path / "mine" / "train.jsonl").exists()
    with pytest.raises(ConfigError, match=r"/memes .*/memes, "):
        clean(root, root)
    with pytest.raises(FormatError, match=r"train\.jsonl: "):
        clean(root, tmp_path / "new", cache=root / "train.jsonl")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", "{}", "5", "null", "\ud800"])
def test_a_damaged_cache_of_hashes_is_named_and_kept(root: Path, tmp_path: Path, text: str) -> None:
    cache = tmp_path / "hashes.json"
    cache.write_bytes(before := text.encode("utf-8", "surrogatepass"))
    with pytest.raises(FormatError, match=str(cache)):
        clean(root, tmp_path / "new", cache=cache)
    assert cache.read_bytes() == before
    assert not (tmp_path / "new").exists()


def test_pairs_need_equal_texts_and_equal_crude_hashes() -> None:
    same = prints(a=(7, "x"), b=(7, "x"))
    assert [d.dropped for d in find_copies([meme("a"), meme("b")], same)] == [("a",)]
    assert not find_copies([meme("a"), meme("b", "other")], same)
    assert not find_copies([meme("a"), meme("b")], prints(a=(7, "x"), b=(7, "y")))
    assert not find_copies([meme("a"), meme("b")], prints(a=(7, "x"), b=(6, "x")))


def test_near_copies_go_but_for_the_last() -> None:
    near = prints(a=(0b0111, "x"), b=(0b0011, "y"), c=(0b0001, "z"), d=(0b11110000, "w"), e=(0b0001, "v"))
    memes = [meme("a"), meme("b", "HI "), meme("c"), meme("d"), meme("e", "hi", 1)]
    assert not find_copies(memes, near)
    found = find_copies(memes, near, near=1)
    assert [key for d in found for key in d.dropped] == ["a", "b"]
    assert [d.reason for d in found if not d.dropped] == ["near copy with another label, 0 bits, kept"]
    assert [key for d in find_copies(memes, near, near=8) for key in d.dropped] == ["a", "b", "c"]


@pytest.mark.parametrize("near", [-1, BITS // 2])
def test_impossible_distances_are_refused(root: Path, tmp_path: Path, near: int) -> None:
    with pytest.raises(ConfigError, match=rf"near .* {near}; "):
        clean(root, tmp_path / "clean", near=near)


def test_bad_data_is_one_error(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    (root / "img" / "00003.png").write_bytes(b"broken")
    (root / "img" / "00004.png").unlink()
    with pytest.raises(FormatError, match=r"00003\.png: .* 1 .*`diptych check "):
        clean(root, out)
    (root / "dev_unseen.jsonl").write_text((root / "train.jsonl").read_text())
    with pytest.raises(FormatError, match=r"dev_unseen\.jsonl:1: .* 1 .* 1 .*train\.jsonl "):
        clean(root, out)
    with (root / "dev_seen.jsonl").open("a") as file:
        file.write((root / "dev_seen.jsonl").read_text())
    with pytest.raises(FormatError, match=r"dev_seen\.jsonl:3: .* 11 .* 1; "):
        clean(root, out)
    (root / "dev_seen.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"dev_seen\.jsonl "):
        clean(root, out)
    assert not list(out.glob("*.jsonl"))


def test_the_verb_shows_what_it_did(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "dev_unseen.jsonl").unlink()
    assert main(["clean", str(root), str(tmp_path / "clean"), "near=2"]) == 0
    shown = capsys.readouterr().out
    assert "copy with another label, kept" in shown
    assert "hashed 14 picture(s)" in shown
    assert main(["clean", str(root), str(tmp_path / "clean"), "near=2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["views"]["train"] == 8
