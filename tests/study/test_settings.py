import contextlib
import copy

import pytest

from diptych.errors import ConfigError, DiptychError, FormatError
from diptych.study import find_study, read_study


def test_vilio_has_its_nineteen_members_with_the_published_seeds():
    study = read_study("vilio", find_study)
    chosen = study.select()
    assert len(chosen.members) == 19
    assert set(chosen.left_out) == {"X60", "X90", "X30", "D50", "D72", "D36"}
    seeds = {member.name: member.seed for member in study.members}
    published = {"O50": 126, "OV50": 84, "O36": 42, "U50": 43, "U72": 86, "U36": 129, "V45": 45, "V135": 135}
    published |= {"X60": 60, "X90": 90, "X30": 30, "D50": 49, "D72": 98, "D36": 147}
    assert published.items() <= seeds.items()
    ernie = {member.name: (member.features, member.more_features) for member in study.members}
    assert ernie["ELV50"] == ("vg50", "vg100")
    assert ernie["ESVCR72"] == ("vgattr72", "vgattr100")


def test_the_tiny_study_is_the_same_study_from_scratch():
    whole, tiny = (read_study(name, find_study) for name in ("vilio", "vilio_tiny"))
    facts = [
        [(one.name, one.seed, one.features, one.more_features) for one in s.members] for s in (whole, tiny)
    ]
    assert facts[0] == facts[1]
    assert not [word for one in tiny.members for word in one.overrides if "weights.model" in word]


def test_a_run_or_a_family_of_the_study_below_can_be_dropped(write):
    tree = {"extends": "vilio", "runs": {"train": ["dev_seen", "test_seen"], "traindev": None}}
    dropped = {"ES": {"compat": None}, "EL": None}
    study = read_study(str(write(tree | {"families": dropped})), find_study)
    assert study.runs == {"train": ("dev_seen", "test_seen")}
    assert [one.name for one in study.families] == ["O", "U", "V", "X", "D", "ES"]


def test_members_are_chosen_by_family_and_name():
    study = read_study("vilio", find_study)
    assert [one.name for one in study.select(["U", "ES72"]).members] == ["U50", "U72", "U36", "ES72"]
    assert [one.name for one in study.select(["U", "ES"], seeds=1).members] == ["U50", "ES36"]
    with pytest.raises(ConfigError, match=r"'U51'.*U50"):
        study.select(["U51"])
    with pytest.raises(ConfigError, match="seeds is 0"):
        study.select(seeds=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree.update(familiesx={}), r"familiesx.*\bfamilies\b"),
        (lambda tree: tree.pop("dev"), r"small\.yaml: dev\b"),
        (lambda tree: tree.update(dev="train"), "dev is 'train'"),
        (lambda tree: tree["families"]["U"]["members"]["U1"].update(features="some"), "U1.* 'some'"),
        (lambda tree: tree["families"]["U"].update(vocabulary="other"), "vocabulary is 'other'"),
        (lambda tree: tree["families"]["U"].update(scores="odds"), r"families\.U\.scores: .*'odds'"),
        (lambda tree: tree["families"]["E"].update(members={"U1": {}}), r"small\.yaml: .*'U1'"),
        (lambda tree: tree["families"]["U"]["members"]["U1"].update(lr=1), r"U1: .*'lr'"),
        (lambda tree: tree["families"]["U"].update(compat={"trane": []}), r"U\.compat: .*'trane'"),
        (lambda tree: tree["ensemble"].update(method="mean"), r"ensemble\.method: .*'mean'"),
        (lambda tree: tree["clean"].update(knownx=True), r"clean: .*'knownx'"),
        (lambda tree: tree["families"].update(U=[1]), r"families\.U is \[1\]"),
    ],
)
def test_a_wrong_key_is_named(tree, write, change, message):
    change(tree)
    path = write(tree)
    with pytest.raises((ConfigError, FormatError), match=message):
        read_study(str(path), find_study)


ODD = (1.5, "x", [None], {"x": [5]})


def keys_of(tree, above=()):
    for key, value in tree.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from keys_of(value, (*above, key))


def test_odd_values_anywhere_get_one_error_that_names_the_file(tree, write):
    for place in list(keys_of(tree)):
        for value in ODD:
            changed = copy.deepcopy(tree)
            node = changed
            for key in place[:-1]:
                node = node[key]
            node[place[-1]] = value
            path = write(changed)
            with contextlib.suppress(DiptychError):  # some values are as good as those before
                read_study(str(path), find_study)


@pytest.mark.parametrize(
    "place",
    [("runs",), ("runs", "train"), ("dev",), ("features",), ("features", "all"), ("families",),
     ("families", "U"), ("families", "U", "members"), ("families", "U", "members", "U1"),
     ("families", "U", "members", "U1", "seed"), ("families", "U", "overrides"), ("clean",), ("ensemble",)],
)  # fmt: skip
def test_a_value_of_another_type_is_named(tree, write, place):
    node = tree
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = 1.5
    with pytest.raises(DiptychError, match=rf"small\.yaml: .*{place[-1]}"):
        read_study(str(write(tree)), find_study)


def test_a_study_that_is_no_study_is_named(tmp_path, tree, write):
    path = tmp_path / "odd.yaml"
    path.write_text("- 1\n")
    with pytest.raises(FormatError, match=r"odd\.yaml: .*list"):
        read_study(str(path), find_study)
    path.write_text("a: [\n")
    with pytest.raises(FormatError, match=r"odd\.yaml"):
        read_study(str(path), find_study)
    path = write(tree | {"extends": str(tmp_path / "small.yaml")})
    with pytest.raises(ConfigError, match=r"small\.yaml: extends"):
        read_study(str(path), find_study)
    with pytest.raises(ConfigError, match=r"'villio'.*'vilio'"):
        read_study("villio", find_study)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "..", "a/b", ".x", "a\\b", "x" * 300, "steps", "data"])
@pytest.mark.parametrize("place", ["members", "families", "runs", "splits", "name"])
def test_no_name_leads_out_of_the_study(tree, write, name, place):
    if name in ("steps", "data") and place != "members":
        return
    if place == "members":
        tree["families"]["E"]["members"] = {name: {"features": "all"}}
    elif place == "families":
        tree["families"][name] = tree["families"].pop("E")
    elif place == "runs":
        tree["runs"][name] = tree["runs"].pop("traindev")
    elif place == "splits":
        tree["runs"]["traindev"] = [name]
    else:
        tree["name"] = name
    path = write(tree)
    with pytest.raises(ConfigError, match=r"small\.yaml: ") as error:
        read_study(str(path), find_study)
    assert repr(name)[1:20] in str(error.value)
