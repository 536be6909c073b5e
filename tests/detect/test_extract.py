"""Whole folders: what is in the stores, what a stop loses, and what bad pictures do."""

import json
import struct
import sys
import zlib
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.convert.detector import DETECTOR
from diptych.convert.rules import restore
from diptych.detect import BoxRule, ExtractSettings, extract, select
from diptych.detect.extractor import build_extractor
from diptych.detect.faster_rcnn import FasterRcnn
from diptych.detect.listing import PictureFile
from diptych.errors import CheckpointMismatch, ConfigError, DiptychError, FormatError
from diptych.features import FeatureStore
from diptych.images import open_image

RULES = ("3", "6", "2:9")
TINY = ExtractSettings(detector="tiny", rules=RULES, batch=2)
NAMES = ("tiny-random3", "tiny-random6", "tiny-random2-9")


def same(one, other):
    for name in ("features", "boxes", "labels", "scores", "attributes", "attribute_scores"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-5)


def test_every_rule_has_its_store_from_one_pass(photos, tmp_path, monkeypatch):
    passes = []
    extractor = build_extractor(TINY)
    detector = extractor.find.args[0]
    monkeypatch.setattr(
        type(detector.proposer), "forward", _counting(type(detector.proposer).forward, passes)
    )
    report = extract(photos, tmp_path / "out", TINY, shard=4)
    assert len(passes) == 10, "each picture once, whatever the number of rules"
    assert [(one.path.name, one.images, one.bad) for one in report.stores] == [(n, 10, ()) for n in NAMES]
    stores = [FeatureStore(tmp_path / "out" / name) for name in NAMES]
    assert [store.meta.box_rule for store in stores] == ["3", "6", "2:9"]
    rules = [BoxRule.parse(rule) for rule in RULES]
    for path in sorted(photos.iterdir()):
        (detection,) = detector([detector.prepare(open_image(path))])
        for store, alone in zip(stores, select(detection, rules), strict=True):
            same(store[path.stem], alone)
    for store in stores:
        assert list(store) == [f"{number:02}" for number in range(10)]
        store.verify()
    assert not [*(tmp_path / "out").glob("*.partial"), *(tmp_path / "out").glob("*.extract")]


def test_a_detector_has_the_sizes_of_its_weights(tmp_path):
    detector = FasterRcnn(blocks=(1, 1, 1, 1), width=4, outputs=12, groups=2, classes=7, attributes=3)
    weights = restore(detector.state_dict(), DETECTOR)
    torch.save(weights, tmp_path / "w.pth")
    for preset in ("vg", "vgattr"):
        settings = ExtractSettings(detector=preset, rules=("3",), weights=tmp_path / "w.pth")
        (meta,) = build_extractor(settings).stores.values()
        assert meta.feature_dim == 96
    with pytest.raises(CheckpointMismatch, match=r"w\.pth: .*proposer\.objectness"):
        build_extractor(ExtractSettings(detector="coco", rules=("3",), weights=tmp_path / "w.pth"))


def test_a_picture_of_no_use_is_named_with_its_file(tmp_path):
    Image.new("RGB", (4000, 1)).save(tmp_path / "long.png")
    with pytest.raises(FormatError, match=r"long\.png: .*4000 x 1"):
        build_extractor(TINY).read(PictureFile("long", tmp_path / "long.png"))


def _counting(function, calls):
    def counted(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return counted


def test_threads_and_repetition_change_no_byte(photos, tmp_path, contents):
    first, second = tmp_path / "first", tmp_path / "second"
    extract(photos, first, TINY, shard=4)
    extract(photos, second, TINY, shard=4, workers=3)
    assert contents(first) == contents(second)


def test_the_report_counts_images_with_too_few_boxes(photos, tmp_path):
    report = extract(photos, tmp_path / "out", ExtractSettings(detector="tiny", rules=("1", "1000")))
    assert [one.fewer for one in report.stores] == [0, 10]


def test_progress_counts_pictures_and_begins_with_those_that_are_there(photos, tmp_path):
    seen = []
    stop = partial(_stop_at, 6, seen)
    with pytest.raises(KeyboardInterrupt):
        extract(photos, tmp_path / "out", TINY, shard=4, progress=stop)
    assert seen == [(done, 10) for done in (0, 1, 2, 3, 4, 4, 5, 6)]
    seen = []
    report = extract(
        photos, tmp_path / "out", TINY, shard=4, resume=True, progress=lambda *at: seen.append(at)
    )
    assert seen[0] == (4, 10)
    assert seen[-1] == (10, 10)
    assert report.computed == 6


def _stop_at(count, seen, done, total):
    seen.append((done, total))
    if done == count:
        raise KeyboardInterrupt


@pytest.mark.parametrize("count", [2, 6, 10])
def test_a_stop_loses_one_shard_at_most_and_changes_no_byte(photos, tmp_path, contents, count):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    extract(photos, whole, TINY, shard=3)
    with pytest.raises(KeyboardInterrupt):
        extract(photos, stopped, TINY, shard=3, progress=partial(_stop_at, count, []))
    report = extract(photos, stopped, TINY, shard=3, resume=True)
    assert report.computed <= 10 - count + 3
    assert contents(whole) == contents(stopped)


@pytest.mark.parametrize("name", NAMES)
def test_a_stop_while_stores_are_finished_repeats_nothing(photos, tmp_path, contents, name, monkeypatch):
    from diptych.detect import progress

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    extract(photos, whole, TINY, shard=3)
    join = progress.join_parts

    def failing(path, **options):
        if path.name == name:
            raise KeyboardInterrupt
        return join(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(progress, "join_parts", failing)
        with pytest.raises(KeyboardInterrupt):
            extract(photos, stopped, TINY, shard=3)
    assert extract(photos, stopped, TINY, shard=3, resume=True).computed == 0
    assert contents(whole) == contents(stopped)
    assert extract(photos, stopped, TINY, shard=3, resume=True).computed == 0, "also when all is done"


def test_what_is_there_is_neither_replaced_nor_mixed(photos, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        extract(photos, out, TINY, shard=3, progress=partial(_stop_at, 5, []))
    with pytest.raises(ConfigError, match=r"tiny-random\.extract .*resume=true.*overwrite=true"):
        extract(photos, out, TINY, shard=3)
    other = ExtractSettings(detector="tiny", rules=("3",), mode="caffe")
    with pytest.raises(ConfigError, match=r"settings: rules .*, mode 'max-class' \(now 'caffe'"):
        extract(photos, out, other, shard=3, resume=True)
    (photos / "00.png").rename(photos / "xx.png")
    with pytest.raises(ConfigError, match="settings: keys"):
        extract(photos, out, TINY, shard=3, resume=True)
    extract(photos, out, TINY, overwrite=True)
    with pytest.raises(ConfigError, match="tiny-random3"):
        extract(photos, out, TINY)
    grid = ExtractSettings(detector="grid", backbone="resnet_tiny", size=32, cells=(2, 3))
    extract(photos, out, grid)
    names = {path.name for path in out.iterdir() if path.is_dir()}
    assert names == {*NAMES, "resnet_tiny-stage4-random-grid2x3"}, "other detectors have their own stores"


def test_what_is_no_store_stands_in_the_way_before_anything_is_computed(photos, tmp_path):
    seen = []
    (tmp_path / "out" / NAMES[1]).mkdir(parents=True)
    (tmp_path / "out" / NAMES[1] / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=NAMES[1]):
        extract(photos, tmp_path / "out", TINY, overwrite=True, progress=lambda *at: seen.append(at))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / f"{NAMES[0]}.json").write_text("mine")
    with pytest.raises(ConfigError, match=r"tiny-random3\.json"):
        extract(photos, tmp_path / "other", TINY, progress=lambda *at: seen.append(at))
    assert not seen


def test_two_runs_do_not_meet(photos, tmp_path):
    def again(done, total):
        if done == 5:
            extract(photos, tmp_path / "out", TINY, resume=True)

    with pytest.raises(ConfigError, match="another process"):
        extract(photos, tmp_path / "out", TINY, progress=again)


def test_a_full_disk_is_one_error_and_keeps_finished_shards(photos, tmp_path, full_disk, contents):
    whole, full = tmp_path / "whole", tmp_path / "full"
    extract(photos, whole, TINY, shard=3)
    calls = []
    with pytest.raises(DiptychError, match="resume=true"):
        extract(photos, full, TINY, shard=3, progress=partial(_fill_at, 5, full_disk, calls))
    calls[0].__exit__(None, None, None)
    assert extract(photos, full, TINY, shard=3, resume=True).computed == 7
    assert contents(whole) == contents(full)


def _fill_at(count, full_disk, calls, done, total):
    if done == count and not calls:
        calls.append(full_disk(2000))
        calls[0].__enter__()


def spoil(photos):
    """Bad pictures, and what is said of them."""
    whole = (photos / "00.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.jpg").touch()
    (photos / "text.png").write_text("no picture")
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    (photos / "huge.png").write_bytes(
        whole[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + whole[33:]
    )
    Image.new("RGB", (3000, 1)).save(photos / "thread.png")
    return {
        "cut": "cannot be read",
        "empty": "not a picture",
        "text": "not a picture",
        "huge": "pixels; expected at most",
        "thread": "a picture of 3000 x 1 pixels would become",
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_pictures_are_left_out_and_reported(photos, tmp_path, workers):
    expected = spoil(photos)
    report = extract(photos, tmp_path / "out", TINY, bad="skip", shard=4, workers=workers)
    for one in report.stores:
        assert {fault.id for fault in one.bad} == set(expected)
        for fault in one.bad:
            assert expected[fault.id] in fault.reason
        written = json.loads(one.path.with_name(f"{one.path.name}.json").read_text())
        assert [fault["id"] for fault in written["bad"]] == [fault.id for fault in one.bad]
        assert list(FeatureStore(one.path)) == [f"{number:02}" for number in range(10)]


def test_the_first_bad_picture_stops_all_if_so_said(photos, tmp_path):
    spoil(photos)
    with pytest.raises(FormatError, match=r"image 'cut': .*cut\.png: .*bad=skip"):
        extract(photos, tmp_path / "out", TINY, shard=4)
    assert extract(photos, tmp_path / "out", TINY, shard=4, bad="skip", resume=True).computed == 7


def test_a_shard_without_a_good_picture_is_empty(photos, tmp_path):
    for number in (3, 4, 5):
        (photos / f"{number:02}.png").write_bytes(b"")
    extract(photos, tmp_path / "out", TINY, bad="skip", shard=3)
    store = FeatureStore(tmp_path / "out" / NAMES[0])
    assert len(store) == 7
    store.verify()
    for path in photos.iterdir():
        path.write_bytes(b"")
    with pytest.raises(FormatError, match=r" 10 .*image '00'"):
        extract(photos, tmp_path / "none", TINY, bad="skip")


def test_odd_pictures_are_as_good_as_others(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    picture = Image.linear_gradient("L").resize((64, 48))
    picture.convert("CMYK").save(photos / "cmyk.jpg")
    Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 20).save(photos / "deep.png")
    Image.new("RGB", (1, 1), "red").save(photos / "dot.png")
    Image.new("RGB", (64, 48)).save(photos / "flat.png")
    picture.save(photos / "moving.gif", save_all=True, append_images=[picture.rotate(90)])
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(photos / "turned.jpg", exif=turned)
    report = extract(photos, tmp_path / "out", TINY)
    assert report.stores[0].bad == ()
    store = FeatureStore(tmp_path / "out" / NAMES[0])
    sizes = {key: store[key].size for key in store}
    assert sizes == {
        "cmyk": (64, 48), "deep": (64, 48), "dot": (1, 1), "flat": (64, 48), "moving": (64, 48),
        "turned": (48, 64),
    }  # fmt: skip


def test_numbers_that_are_none_make_a_picture_bad(photos, tmp_path, monkeypatch):
    module = sys.modules["diptych.detect.extract"]

    def broken(settings, *, device):
        extractor = build_extractor(settings, device=device)
        extractor.find.args[0].network.bn1.weight.fill_(torch.nan)
        return extractor

    monkeypatch.setattr(module, "build_extractor", broken)
    with pytest.raises(FormatError, match=r"image '00': region 0 .*NaN"):
        extract(photos, tmp_path / "out", ExtractSettings(detector="grid", backbone="resnet_tiny", size=32))


def test_given_boxes_take_the_place_of_rules(photos, tmp_path):
    path = tmp_path / "boxes.jsonl"
    records = [{"id": f"{n:02}", "boxes": [[0, 0, 20, 20], [5, 5, 30 + n, 30]][: n % 3]} for n in range(9)]
    records[8]["boxes"] = [[30, 0, 20, 20]]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    for detector in ("tiny", "grid"):
        settings = ExtractSettings(detector=detector, given=path, backbone="resnet_tiny", size=64)
        report = extract(photos, tmp_path / "out", settings, bad="skip")
        (one,) = report.stores
        assert {fault.id for fault in one.bad} == {"08", "09"}
        store = FeatureStore(one.path)
        assert store.meta.box_rule == "given"
        for record in records[:8]:
            assert store[record["id"]].boxes.tolist() == record["boxes"]
            assert (store[record["id"]].labels is None) == (detector == "grid")


def test_half_the_space_with_float16(photos, tmp_path):
    settings = ExtractSettings(detector="tiny", rules=("3",), dtype="float16", precision="bf16")
    extract(photos, tmp_path / "out", settings)
    store = FeatureStore(tmp_path / "out/tiny-random3")
    assert store.meta.dtype == store["00"].features.dtype == "float16"


def test_padding_is_shared_within_a_batch_if_so_said(photos, tmp_path):
    for padded in (False, True):
        settings = ExtractSettings(detector="tiny", rules=("3",), padded=padded, batch=4)
        extract(photos, tmp_path / f"{padded}", settings)
    alone, together = (FeatureStore(tmp_path / f"{padded}/tiny-random3") for padded in (False, True))
    assert any(not np.allclose(alone[key].boxes, together[key].boxes, atol=0.1) for key in alone)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"detector": "vgatr"}, "'vgatr': .*'vgattr'"),
        ({"precision": "16"}, "'16': .* 32, bf16"),
        ({"batch": 0}, "batch 0"),
        ({"rules": ("ten",)}, "'ten'"),
        ({"mode": "best"}, "'best'"),
        ({"rules": ("3", "3")}, "rules 3, 3"),
        ({"classes": ("cat",)}, "1 .*classes; detector 'tiny' .*20"),
    ],
)
def test_settings_that_cannot_work_are_refused(photos, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        extract(photos, tmp_path / "out", ExtractSettings(**{"detector": "tiny", **settings}))


def test_stores_are_named_after_detector_weights_and_rule(tmp_path):
    file = tmp_path / "weights.pth"
    names = [
        [*ExtractSettings(**values).stores()]
        for values in (
            {"weights": file, "rules": ("36", "10:100")},
            {"rules": ("36",), "mode": "per-class"},
            {"given": file},
            {"detector": "grid", "weights": file, "stage": 3, "cells": (7, 9)},
            {"detector": "grid", "backbone": "transformers:models/vit"},
        )
    ]
    assert names == [
        ["vgattr36", "vgattr10-100"],
        ["vgattr-random36-per-class"],
        ["vgattr-random-given"],
        ["resnet50-stage3-grid7x9"],
        ["vit-grid"],
    ]


def test_shards_have_a_size(photos, tmp_path):
    with pytest.raises(ConfigError, match=r"10 .* 0: "):
        extract(photos, tmp_path / "out", TINY, shard=0)


@pytest.mark.parametrize("trouble", ["weights", "picture", "disk"])
def test_a_failed_start_leaves_nothing(trouble, photos, tmp_path, full_disk):
    out, settings = tmp_path / "out", TINY
    if trouble == "weights":
        settings = replace(TINY, weights=tmp_path / "absent.pkl")
        (tmp_path / "absent.pkl").write_text("no weights")
    if trouble == "picture":
        next(iter(sorted(photos.iterdir()))).write_text("no picture")
    with pytest.raises((DiptychError, OSError)), full_disk(10 if trouble == "disk" else 1 << 30):
        extract(photos, out, settings, shard=3)
    assert not out.exists()
