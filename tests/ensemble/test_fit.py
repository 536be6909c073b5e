"""Vilio's own numbers in compat mode; what a fit on dev must and must not look at otherwise."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata

from diptych.cli import main
from diptych.ensemble import (
    FitReport,
    Members,
    fit_blend,
    fit_once,
    read_members,
    read_predictions,
    write_predictions,
)
from diptych.ensemble.loop import two_round_loop
from diptych.ensemble.vilio import average_raw
from diptych.errors import ConfigError, FormatError
from diptych.metrics import auroc
from diptych.predictions import Predictions

METHODS = ("simplex", "greedy", "loop")
SPLITS = {"dev_seen": range(60), "test_seen": range(100, 140), "test_unseen": range(300, 350)}
FAMILIES = {"EL": (5, 1, 0.3), "ES": (9, 4, 0.25), "O": (13, 7, 0.2), "U": (17, 2, 0.15), "V": (23, 11, 0.1)}
# by the original's own arithmetic on the files below: first four rows, sum, rows above the threshold
VILIO = {
    "dev_seen": ((-1.6394642435162916, -0.40794650476502414, -0.6981975775380131, -0.4988268213662),
                 -27.598890723726544, 21),
    "test_seen": ((-0.7808516938223209, -0.0024742301827989366, -0.32184923915296826, 0.013719144788329612),
                  -16.571921850592716, 15),
    "test_unseen": ((-0.7087784443139544, -0.10211932342687963, -0.8403445512433951, -0.80181566939676),
                    -21.514917838081608, 18),
}  # fmt: skip


def positive(key: int) -> bool:
    return (7 * key + 3) % 5 < 2


def chance(family: str, key: int) -> float:
    step, start, gain = FAMILIES[family]
    return ((step * key + start) % 47) / 47 + gain * positive(key)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """15 files as Vilio writes them, log-probabilities and logits, each in an order of its own."""
    folder = tmp_path / "csv"
    folder.mkdir()
    for number, family in enumerate(FAMILIES):
        for split, keys in SPLITS.items():
            rows = ["id,proba,label"]
            for key in sorted(keys, key=lambda key: number and (key * 37) % 61):
                x = chance(family, key)
                score = 4 * x - 3 if family.startswith("E") else float(np.log((x + 0.01) / 1.5))
                rows.append(f"{key},{score!r},0")
            (folder / f"{family}_{split}_SA.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "memes"
    folder.mkdir()
    records = [{"id": k, "img": f"img/{k}.png", "text": "hi", "label": int(positive(k))} for k in range(60)]
    (folder / "dev_seen.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def probabilities(rows: int = 120, count: int = 4, *, noise: float = 2, seed: int = 0) -> Members:
    generator = np.random.default_rng(seed)
    found = {}
    for split in ("dev", "test"):
        signal = np.arange(rows) % 2 + generator.normal(size=(count, rows)) * noise
        scores = 1 / (1 + np.exp(-signal))
        found[split] = tuple(
            Predictions(
                ids=tuple(f"{split}{row}" for row in range(rows)),
                scores=np.stack((1 - one, one), axis=1),
                classes=("benign", "hateful"),
            )
            for one in scores
        )
    return Members(names=tuple("abcdef"[:count]), predictions=found, dropped={})


def labels(rows: int = 120) -> dict[str, int | None]:
    return {f"dev{row}": row % 2 for row in range(rows)}


def reports(members: Members) -> dict[str, tuple[dict[str, Predictions], FitReport]]:
    return {
        method: fit_blend(members, labels(), dev="dev", method=method, folds=2, steps=60)
        for method in METHODS
    }


def test_compat_gives_the_numbers_of_vilio(files: Path) -> None:
    members = read_members([files], kind="raw")
    truth = {str(key): int(positive(key)) for key in SPLITS["dev_seen"]}
    blends, report = fit_blend(members, truth, dev="dev_seen", compat=True, folds=1)
    assert report.in_sample[0] == pytest.approx(0.9259259259259259, abs=1e-12)
    assert report.threshold == pytest.approx(-0.2875015955963871, abs=1e-9)
    assert len(report.rounds[1].aurocs) == 9
    assert len(report.rounds[1].dropped) == 4
    for split, (first, total, above) in VILIO.items():
        scores = blends[split].column("1")
        assert blends[split].ids == tuple(map(str, SPLITS[split]))
        assert scores[:4] == pytest.approx(first, abs=1e-9)
        assert scores.sum() == pytest.approx(total, abs=1e-9)
        answers = blends[split].answers or ()
        # on dev Vilio keeps the labels of the first file, all 0 here
        assert answers.count("1") == (0 if split == "dev_seen" else above)


@pytest.mark.slow
def test_compat_labels_of_dev_are_those_of_the_first_file_that_survives(files: Path) -> None:
    """The labels of the k-th file name it: file k says hateful for every id with remainder k."""
    paths = sorted(files.glob("*_dev_seen_SA.csv"))
    for number, path in enumerate(paths):
        rows = path.read_text().splitlines()
        marked = [
            f"{row.rpartition(',')[0]},{int(place % len(paths) == number)}"
            for place, row in enumerate(rows[1:])
        ]
        path.write_text("\n".join([rows[0], *marked]) + "\n")
    members = read_members([files], kind="raw")
    truth = {str(key): int(positive(key)) for key in SPLITS["dev_seen"]}
    for method in ("loop", "simplex"):
        blends, report = fit_blend(members, truth, dev="dev_seen", method=method, compat=True, folds=1)
        kept = report.rounds[-1].weights
        survivor = next(number for number, name in enumerate(members.names) if name in kept)
        expected = members.predictions["dev_seen"][survivor]
        assert blends["dev_seen"].answers == expected.align(blends["dev_seen"].ids).answers
        assert (survivor == 0) == (method == "simplex"), "the loop prunes the first file of this set"


def test_the_average_of_vilio_has_the_labels_of_a_file_that_it_may_not_hear(tmp_path: Path) -> None:
    for number, name in enumerate(("dev_seenEL36.csv", "dev_seenEL72.csv", "dev_seenELV50.csv")):
        rows = "".join(f"{key},{key - number},{int(number == 0)}\n" for key in range(4))
        (tmp_path / name).write_text(f"id,proba,label\n{rows}")
    files = map(str, sorted(tmp_path.glob("*.csv"), reverse=True))
    out = tmp_path / "out" / "EL_dev_seen.csv"
    assert main(["ensemble", *files, "--compat", "--out", str(out)]) == 0
    average = read_predictions(out, kind="raw")
    assert average.answers == ("1",) * 4
    assert average.column("1").tolist() == [-1.5, -0.5, 0.5, 1.5]


def test_compat_averages_the_numbers_in_the_files(files: Path, tmp_path: Path) -> None:
    paths = sorted(files.glob("*_test_seen_SA.csv"))
    average = average_raw([read_predictions(path, kind="raw") for path in paths])
    raw = [dict(line.split(",")[:2] for line in path.read_text().splitlines()[1:]) for path in paths]
    expected = [sum(float(one[key]) for one in raw) / 5 for key in average.ids]
    assert average.column("1") == pytest.approx(expected, abs=1e-12)
    write_predictions(average, tmp_path / "raw.csv")
    again = read_predictions(tmp_path / "raw.csv", kind="raw")
    assert (again.column("1") == average.column("1")).all()
    assert again.answers == ("0",) * 40


def test_the_verb_writes_every_split_and_does_not_read_itself(
    files: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ensemble", str(files), "--root", str(root), "--method", "loop", "--steps", "60", "--out"]
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    assert main([*words, str(files.parent / "out")]) == 0
    shown = capsys.readouterr().out
    assert "optimism: +" in shown
    assert "best member: ES_SA" in shown
    for name in ("FIN_dev_seen.csv", "FIN_test_seen.csv", "FIN_test_unseen.csv"):
        (files / name).write_bytes((files.parent / "out" / name).read_bytes())
        scores = read_predictions(files / name, kind="probability")
        assert len(scores) == len(SPLITS[name[4:-4]])
    assert main([*words, str(files.parent / "again")]) == 0
    for path in (files.parent / "out").iterdir():
        assert (files.parent / "again" / path.name).read_bytes() == path.read_bytes()
    assert {path.name: path.read_bytes() for path in files.iterdir() if path.name in before} == before
    report = json.loads((files.parent / "out" / "report.json").read_text())
    assert report["optimism"] == pytest.approx(report["in_sample"][0] - report["out_of_fold"][0])


def test_a_fit_finds_the_best_member_among_noise() -> None:
    members = probabilities(noise=30)
    generator = np.random.default_rng(1)
    for split, found in members.predictions.items():
        good = np.clip(np.arange(120) % 2 * 0.5 + generator.random(120) * 0.6, 0, 1)
        scores = np.stack((1 - good, good), axis=1)
        members.predictions[split] = (*found[:3], replace(found[3], scores=scores))  # type: ignore[index]
    for method, (blends, report) in reports(members).items():
        assert report.rounds[0].weights["d"] > 0.5, method
        assert report.best_member[0] == "d"
        test = auroc(np.arange(120) % 2, blends["test"].column("hateful"))
        assert test > 0.85, method


@pytest.mark.slow
def test_fitted_scores_flatter_noise_and_the_report_says_so() -> None:
    found = [reports(probabilities(noise=50, count=6, seed=seed)) for seed in range(5)]
    for method in METHODS:
        said = [one[method][1] for one in found]
        honest = [report.out_of_fold[0] for report in said if report.out_of_fold]
        assert np.mean([report.in_sample[0] for report in said]) > 0.57, method
        assert 0.45 < np.mean(honest) < 0.55, method
        assert [report.optimism for report in said] == [
            report.in_sample[0] - value for report, value in zip(said, honest, strict=True)
        ]


def test_held_out_rows_are_probabilities_of_fits_without_their_label() -> None:
    for method, (blends, report) in reports(probabilities(noise=50, count=6)).items():
        truth, fitted, held_out = np.arange(120) % 2, blends["dev"], report.held_out
        assert held_out is not None
        assert held_out.ids == fitted.ids
        # Noise looks good to the fit that saw the labels, and to no other.
        assert auroc(truth, held_out.column("hateful")) < auroc(truth, fitted.column("hateful")), method
        assert ((held_out.column("hateful") >= 0) & (held_out.column("hateful") <= 1)).all()
        assert "held_out" not in report.as_dict()


def test_a_row_depends_on_no_other_row_of_its_split() -> None:
    members = probabilities()
    cut = {**members.predictions, "test": tuple(one.select([5, 3]) for one in members.predictions["test"])}
    few = reports(replace(members, predictions=cut))
    for method, (blends, _) in reports(members).items():
        expected = blends["test"].select([5, 3])
        assert few[method][0]["test"].scores == pytest.approx(expected.scores), method
        assert few[method][0]["test"].answers == expected.answers


def test_answers_follow_the_threshold_of_dev() -> None:
    for blends, report in reports(probabilities()).values():
        for found in blends.values():
            above = found.column("hateful") >= report.threshold
            assert [answer == "hateful" for answer in found.answers or ()] == above.tolist()
            assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_one_member_and_constant_members_work(tmp_path: Path) -> None:
    members = probabilities(count=1)
    for method, (blends, report) in reports(members).items():
        alone = members.predictions["test"][0].column("hateful")
        order = np.argsort(blends["test"].column("hateful"))
        assert (order == np.argsort(alone)).all(), method
        assert report.rounds[0].weights == {"a": 1.0}
    members = probabilities(count=2)
    flat = {s: (replace(a, scores=np.full_like(a.scores, 0.5)), b) for s, (a, b) in
            members.predictions.items()}  # fmt: skip
    for method, (blends, report) in reports(replace(members, predictions=flat)).items():
        assert report.constant == ("a",), method
        assert report.in_sample[0] == pytest.approx(report.best_member[1])
        assert np.isfinite(blends["test"].scores).all()
    nothing = {s: (one, one) for s, (one, _) in flat.items()}
    for method, (blends, report) in reports(replace(members, predictions=nothing)).items():
        assert report.in_sample[0] == 0.5, method
        assert np.ptp(blends["test"].column("hateful")) == 0


def test_the_second_round_drops_the_worst_columns() -> None:
    columns = {"dev": np.stack([one.column("hateful") for one in probabilities().predictions["dev"]])}
    truth = np.arange(120) % 2 == 1
    scores, rounds = two_round_loop(columns, truth, dev="dev", names="abcd", steps=200)
    areas = rounds[1].aurocs
    assert list(areas) == ["a", "b", "c", "d", "(mean)", "(mean square)", "(mean rank)", "(simplex)"]
    assert set(rounds[1].dropped) == set(sorted(areas, key=areas.__getitem__)[:3])
    assert areas["(simplex)"] == rounds[0].auroc
    ranks = sum(0.25 * rankdata(row) / 120 for row in columns["dev"])
    assert areas["(mean rank)"] == auroc(truth, np.asarray(ranks))
    assert auroc(truth, scores["dev"]) == rounds[1].auroc >= rounds[0].auroc


def test_what_cannot_be_fitted_is_an_error() -> None:
    members = probabilities()
    with pytest.raises(ConfigError, match=r"120 examples of dev .* 1;"):
        fit_blend(members, dict.fromkeys(labels(), 1), dev="dev")
    with pytest.raises(FormatError, match=r"1 .*\(dev0\).* 0 "):
        fit_blend(members, {**labels(), "dev0": None}, dev="dev")
    with pytest.raises(FormatError, match=r"0 .* 1 .*\(other\)"):
        fit_blend(members, {**labels(), "other": 1}, dev="dev")
    with pytest.raises(ConfigError, match=r"'deb'.*'dev'"):
        fit_blend(members, labels(), dev="deb")
    large = {split: tuple(replace(one, scores=one.scores * 3) for one in found)
             for split, found in members.predictions.items()}  # fmt: skip
    with pytest.raises(FormatError, match=r"score [1-3]\.\d+"):
        fit_blend(replace(members, predictions=large), labels(), dev="dev")
    scores, names = np.full((120, 3), 1 / 3), ("x", "y", "z")
    three = {split: tuple(replace(one, scores=scores, classes=names) for one in found)
             for split, found in members.predictions.items()}  # fmt: skip
    with pytest.raises(FormatError, match=r"dev: .* 3 classes"):
        fit_blend(replace(members, predictions=three), labels(), dev="dev")
    one = {**dict.fromkeys(labels(), 0), "dev3": 1}
    _, report = fit_blend(members, one, dev="dev", method="greedy")
    assert report.out_of_fold is report.optimism is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "loop"], "--root FOLDER"),
        (["--method", "greedy", "--compat"], "--method greedy"),
        (["--method", "simplex", "--root", "memes", "--weights", "1,2"], "remove --weights"),
    ],
)
def test_the_verb_refuses_what_does_not_go_together(
    words: list[str], message: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ensemble", str(files), "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_verb_averages_as_vilio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("EL36", "EL72", "ELV50", "ELVCR36", "ELVCR72")):
        (tmp_path / f"dev_seen{name}.csv").write_text(f"id,proba,label\n7,{10.0**number},0\n8,-1.5,0\n")
    files = [str(path) for path in sorted(tmp_path.glob("*.csv"))]
    assert main(["ensemble", *files, "--compat", "--out", str(tmp_path / "EL_dev_seen.csv")]) == 0
    average = read_predictions(tmp_path / "EL_dev_seen.csv", kind="raw")
    assert average.column("1") == pytest.approx([(10 + 100 + 10000) / 3, -1.5])
    assert "without dev_seenEL36.csv, dev_seenELVCR36.csv" in capsys.readouterr().out


def test_vilio_averages_csv_files_with_an_npz_that_names_the_classes(tmp_path: Path) -> None:
    (tmp_path / "a_dev_seen.csv").write_text("id,proba,label\n7,-0.5,0\n8,-1.5,0\n")
    scores = np.array([[0.75, 0.25], [0.5, 0.5]])
    ours = Predictions(ids=("7", "8"), scores=scores, classes=("benign", "hateful"), answers=("benign",) * 2)
    ours.save(tmp_path / "b_dev_seen.npz")
    files = [str(tmp_path / name) for name in ("a_dev_seen.csv", "b_dev_seen.npz")]
    for number, order in enumerate((files, files[::-1])):
        out = tmp_path / f"out{number}_dev_seen.csv"
        assert main(["ensemble", *order, "--compat", "--out", str(out)]) == 0
        assert read_predictions(out, kind="raw").column("1").tolist() == [-0.125, -0.5]


@pytest.mark.parametrize("method", METHODS)
def test_a_blend_that_is_kept_scores_each_row_as_the_fit_does(method: str) -> None:
    rng = np.random.default_rng(4)
    truth = {str(key): int(key % 3 == 0) for key in range(60)}
    found = {}
    for split, count in (("dev", 60), ("test", 20)):
        ids = tuple(map(str, range(count)))
        lean = np.array([0.3 * truth[key] for key in ids])
        columns = [np.clip(rng.uniform(0, 0.7, count) + lean, 0, 1) for _ in range(3)]
        found[split] = tuple(
            Predictions(ids=ids, scores=np.stack((1 - one, one), 1), classes=("no", "yes")) for one in columns
        )
    members = Members(names=("A", "B", "C"), predictions=found, dropped={})
    blends, report = fit_blend(members, truth, dev="dev", method=method, folds=0)
    kept = fit_once(members, truth, dev="dev", method=method)
    for row, expected in enumerate(blends["test"].column("yes")):
        alone = kept(np.array([[one.column("yes")[row]] for one in found["test"]]))
        assert alone[0] == expected
    assert kept.threshold == report.threshold
