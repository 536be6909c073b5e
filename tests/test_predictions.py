import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.predictions import Predictions, respell


def some(ids: tuple[str, ...] = ("a", "b", "c")) -> Predictions:
    scores = np.linspace(0, 1, 2 * len(ids)).reshape(-1, 2)
    answers = tuple(f"answer {key}" for key in ids)
    return Predictions(ids=ids, scores=scores, answers=answers, classes=("no", "yes"), meta={"split": "dev"})


def equal(left: Predictions, right: Predictions) -> bool:
    plain = (left.ids, left.answers, left.classes, left.meta) == (
        right.ids, right.answers, right.classes, right.meta
    )  # fmt: skip
    more = (left.texts, left.rankings, left.form) == (right.texts, right.rankings, right.form)
    arrays = ((left.scores, right.scores), (left.boxes, right.boxes))
    return plain and more and all(a is b is None or np.array_equal(a, b) for a, b in arrays)


def grounded(ids: tuple[str, ...] = ("a", "b", "c")) -> Predictions:
    """Predictions with all that is not a score."""
    return Predictions(
        ids=ids,
        boxes=np.arange(4.0 * len(ids)).reshape(-1, 4),
        texts=tuple(f"ein Bild von {key}" for key in ids),
        rankings=tuple((key, "x", "y")[: 1 + row] for row, key in enumerate(ids)),
        form="boxes",
    )


def test_counts_must_agree() -> None:
    with pytest.raises(FormatError, match=r"2 ids .* 1 scores"):
        Predictions(ids=("a", "b"), scores=np.zeros((1, 2)))
    with pytest.raises(FormatError, match=r"1 ids .* 2 answers"):
        Predictions(ids=("a",), answers=("x", "y"))
    with pytest.raises(FormatError, match=r" 3 .*\('no', 'yes'\)"):
        Predictions(ids=("a",), scores=np.zeros((1, 3)), classes=("no", "yes"))


def test_column_is_found_by_name() -> None:
    np.testing.assert_array_equal(some().column("yes"), some().scores[:, 1])
    with pytest.raises(FormatError, match=r"'maybe'; .*\('no', 'yes'\)"):
        some().column("maybe")
    with pytest.raises(FormatError, match=r"'yes'; .* None"):
        Predictions(ids=("a",), answers=("x",)).column("yes")


def test_align_follows_ids_and_not_positions() -> None:
    aligned = some().align(["c", "a", "b"])
    assert aligned.ids == ("c", "a", "b")
    assert aligned.answers == ("answer c", "answer a", "answer b")
    np.testing.assert_array_equal(aligned.scores, some().scores[[2, 0, 1]])
    assert aligned.meta == {"split": "dev"}


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (("a", "b"), r" 0 .* 1 \(c\) "),
        (("a", "b", "c", "d"), r" 1 \(d\) .* 0 "),
        (tuple("vwxyzuabc"), r" 6 \(v, w, x, y, z, \.\.\.\) .* 0 "),
    ],
)
def test_align_refuses_other_examples(ids: tuple[str, ...], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        some().align(ids)


def test_align_refuses_repeated_ids() -> None:
    with pytest.raises(FormatError, match=r" 1 \(a\)"):
        some(("a", "b", "a")).align(["a", "b"])


def test_unique_keeps_the_first_row_of_each_id() -> None:
    repeated = some(("a", "b", "a", "c", "b"))
    unique = repeated.unique()
    assert unique.ids == ("a", "b", "c")
    np.testing.assert_array_equal(unique.scores, repeated.scores[[0, 1, 3]])
    assert some().unique().ids == ("a", "b", "c")


def test_concat_keeps_order() -> None:
    first, second = some(("a", "b")), some(("c",))
    both = Predictions.concat([first, second])
    assert both.ids == ("a", "b", "c")
    assert both.answers == ("answer a", "answer b", "answer c")
    np.testing.assert_array_equal(both.scores, np.concatenate([first.scores, second.scores]))
    assert len(both) == 3


@pytest.mark.parametrize(
    "predictions",
    [
        some(),
        some(()),
        grounded(),
        Predictions(ids=("1", "zwei", "中")),
        Predictions(ids=("a",), answers=("an answer, quoted \"'",)),
        Predictions(ids=("a",), scores=np.float32([[0.1]]), meta={"nested": {"list": [1, None, True]}}),
    ],
)
def test_file_returns_what_was_saved(tmp_path: Path, predictions: Predictions) -> None:
    predictions.save(tmp_path / "p.npz")
    assert equal(Predictions.load(tmp_path / "p.npz"), predictions)


def test_boxes_texts_and_rankings_go_with_their_ids() -> None:
    whole = grounded()
    turned = whole.align(["c", "a", "b"])
    assert turned.boxes is not None
    assert turned.boxes[:, 0].tolist() == [8, 0, 4]
    assert turned.texts == ("ein Bild von c", "ein Bild von a", "ein Bild von b")
    assert turned.rankings == (("c", "x", "y"), ("a",), ("b", "x"))
    assert equal(Predictions.concat([whole.select([0]), whole.select([1, 2])]), whole)
    assert whole.finite
    whole.boxes[1, 2] = np.inf
    assert not whole.finite
    for name in ("boxes", "texts", "rankings"):
        with pytest.raises(FormatError, match=rf"2 ids .* 3 {name}"):
            Predictions(ids=("a", "b"), **{name: getattr(whole, name)})


def test_boxes_among_the_scores_of_version_0_1_are_refused(tmp_path: Path) -> None:
    old = Predictions(ids=("a",), scores=np.zeros((1, 4)), classes=("x1", "y1", "x2", "y2"))
    old.save(tmp_path / "old.npz")
    with pytest.raises(FormatError, match=r"old\.npz: .* 0\.1"):
        Predictions.load(tmp_path / "old.npz")


def test_file_keeps_its_name_and_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        some().save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_broken_files_are_named(tmp_path: Path) -> None:
    some().save(tmp_path / "whole.npz")
    whole, path = (tmp_path / "whole.npz").read_bytes(), tmp_path / "broken.npz"
    for content in (b"", b"id,proba,label\n", whole[:40], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"broken\.npz: "):
            Predictions.load(path)
    with pytest.raises(FormatError, match=r"absent\.npz: "):
        Predictions.load(tmp_path / "absent.npz")


OTHER = {"5": ("00005", "5.0", " 5 ", "5."), "img/a": (" img/a",), "07": ("7",), "é 1": ("é 1 ",)}


@pytest.mark.parametrize(("name", "other"), [(name, one) for name, many in OTHER.items() for one in many])
def test_ids_in_another_spelling_are_joined(name: str, other: str) -> None:
    found = Predictions(ids=("x", other), answers=("no", "yes")).align([name, "x"])
    assert found.ids == (name, "x")
    assert found.answers == ("yes", "no")


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (("05", "005"), ("5", "6")),
        (("5.5",), ("5",)),
        (("-5",), ("5",)),
        (("a",), ("A",)),
        (("\u0665",), ("5",)),
    ],
)
def test_what_may_be_another_id_is_not_joined(here: tuple[str, ...], there: tuple[str, ...]) -> None:
    with pytest.raises(FormatError, match=rf" {len(there)} .* {len(here)} "):
        Predictions(ids=here).align(there)


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        "{}",
        '"text"',
        '{"ids": 5}',
        "not json",
        '{"ids": [1]}',
        '{"ids": [], "classes": "no"}',
        '{"ids": [], "meta": []}',
        '{"ids": [], "ids": []}',
        '{"ids": ["\\ud800"]}',
        "[" * 99_999,
    ],
)
def test_wrong_headers_are_named(tmp_path: Path, header: str) -> None:
    np.savez(tmp_path / "p.npz", header=np.array(header))
    with pytest.raises(FormatError, match=r"p\.npz: .*`diptych predict`"):
        Predictions.load(tmp_path / "p.npz")


def test_disagreeing_arrays_are_refused(tmp_path: Path) -> None:
    header = json.dumps({"ids": ["a", "b"], "classes": ["no", "yes"]})
    for scores in (np.zeros((1, 2)), np.zeros((2, 3)), np.zeros(2), np.array(["x", "y"])):
        np.savez(tmp_path / "p.npz", header=np.array(header), scores=scores)
        with pytest.raises(FormatError):
            Predictions.load(tmp_path / "p.npz")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    np.savez(tmp_path / "p.npz", header=np.array([Trap()], dtype=object))
    with pytest.raises(FormatError):
        Predictions.load(tmp_path / "p.npz")
    assert not (tmp_path / "sprung").exists()


def test_travels_between_processes() -> None:
    assert equal(pickle.loads(pickle.dumps(some())), some())


@pytest.mark.parametrize(
    ("ids", "like", "expected"),
    [
        (["5", "7"], ["5", "7"], ("5", "7")),
        (["00005", "7.0", " 12 "], ["5", "7", "12"], ("5", "7", "12")),
        (["5", "7"], ["00005", "00007"], ("00005", "00007")),
        (["0", "000"], ["00"], ("0", "000")),  # two of ours are one number
        (["5"], ["05", "005"], ("5",)),  # two of theirs are
        (["5", "05"], ["5"], ("5", "05")),  # taken already
        (["a ", "-5", "5.5", "1e3", "\u0665"], ["a", "5", "1000"], ("a", "-5", "5.5", "1e3", "\u0665")),
    ],
)
def test_ids_are_respelled_only_where_nothing_is_guessed(ids, like, expected):
    assert respell(ids, like) == expected


def test_align_joins_ids_that_differ_in_spelling():
    predictions = Predictions(ids=("00012", "5.0"), scores=np.array([[0.9], [0.1]]), classes=("x",))
    aligned = predictions.align(["5", "12"])
    assert aligned.ids == ("5", "12")
    assert aligned.column("x").tolist() == [0.1, 0.9]


HEADER = {"ids": ["1"], "answers": ["a"], "classes": ["a"], "meta": {}}


@pytest.mark.parametrize(
    "change",
    [{"ids": 5}, {"ids": [1]}, {"ids": None}, {"answers": 5}, {"answers": [None]}, {"classes": [["a"]]},
     {"texts": "a"}, {"texts": [1]}, {"texts": []}, {"rankings": ["a"]}, {"rankings": [[1]]}, {"form": 1},
     {"classes": "a"}, {"meta": None}, {"meta": [1]}, {"ids": ["1", "2"]}, {"ids": ["\ud800"]}],
)  # fmt: skip
def test_wrong_types_in_the_header_get_one_error(tmp_path, change):
    path = tmp_path / "a.npz"
    np.savez(path, header=np.array(json.dumps(HEADER | change)), scores=np.ones((1, 1)))
    with pytest.raises(FormatError, match=r"a\.npz"):
        Predictions.load(path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"scores": np.ones((1, 1))},
        {"header": np.array(json.dumps(HEADER)), "scores": np.array("x")},
        {"header": np.array(json.dumps(HEADER)), "scores": np.ones(1)},
        {"header": np.array(json.dumps(HEADER)), "boxes": np.ones((1, 3))},
        {"header": np.array(json.dumps(HEADER)), "boxes": np.ones((2, 4))},
        {"header": np.array(json.dumps(HEADER)), "boxes": np.ones((1, 4), int)},
        {"header": np.array(json.dumps(HEADER)), "boxes": np.ones(4)},
        {"header": np.array(b"\xff"), "scores": np.ones((1, 1))},
        {"header": np.array("[1]"), "scores": np.ones((1, 1))},
    ],
)
def test_wrong_arrays_get_one_error(tmp_path, arrays):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(FormatError, match=r"a\.npz"):
        Predictions.load(path)


def test_a_file_that_unpacks_to_gigabytes_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", b"x")
    data = bytearray(path.read_bytes())
    place = data.find(b"PK\x01\x02") + 24
    data[place : place + 4] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.npz: .* 4,294,967,294 .* 1,073,741,824 "):
        Predictions.load(path)


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(FormatError, match=r"a\.npz: "):
        Predictions.load(tmp_path / "a.npz")
