"""Every command that a message, a help text or a page tells to type is one that can be typed."""

import ast
import re
import shlex
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

import diptych
from diptych import conf
from diptych.cli import VERBS, main, parsed, parser_of
from diptych.recipe import compose

SOURCE = Path(diptych.__file__).parent
PAGES = SOURCE.parent.parent
QUOTED, LINE = r"`diptych ([a-z][^`]*)`", r"(?:\$ |next: +|try: +)?diptych ([a-z].*)$"
SAID = re.compile(rf"{QUOTED}|^(?:  +|(?=\$|next:|try:)){LINE}", re.MULTILINE)
WRITTEN = re.compile(rf"{QUOTED}|^ *{LINE}", re.MULTILINE)
GROUPS = ("experiment", "model", "data", "task", "optim", "schedule", "averaging", "trainer", "debug")


def strings(path: Path) -> Iterator[str]:
    """Texts of a module; what is filled in later is an X."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    filled = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in filled for part in node.values}
    for node in filled:
        yield "".join(str(one.value) if isinstance(one, ast.Constant) else "X" for one in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def commands() -> list[str]:
    pages = [PAGES / "README.md", *sorted((PAGES / "docs").rglob("*.md"))]
    found = [
        one for path in sorted(SOURCE.rglob("*.py")) for text in strings(path) for one in cut(SAID, text)
    ]
    found += [one for path in pages for one in cut(WRITTEN, path.read_text(encoding="utf-8"))]
    return sorted(set(found))


def cut(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    """The commands of a text, without what is said behind them."""
    for match in pattern.finditer(re.sub(r"\\\n *", " ", text)):
        words = re.split(r"  +#| # | {3,}(?=[a-z])| \| | > | && |[;.] [A-Z]", match[1] or match[2])[0]
        if match[1] or words.split()[0] in VERBS:  # else a sentence that begins with the name
            yield " ".join(words.split()).rstrip(".;:,")


COMMANDS = commands()


def test_there_are_commands_of_every_verb() -> None:
    assert {line.split()[0] for line in COMMANDS} >= set(VERBS)
    assert len(COMMANDS) > 100


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_can_be_typed(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb, *words = shlex.split(line)
    assert verb in VERBS
    open_end = "..." in words or not words or words[0].startswith("-")  # a verb or an option that is named
    words = [word for word in words if not word.endswith("...")]
    if verb == "train":
        check_training(words)
        return
    arguments, code = None, None
    try:
        arguments = parsed(parser_of(verb), words)
    except SystemExit as end:
        code = end.code
    if arguments is None:
        said = capsys.readouterr().err
        missing = "the following arguments are required" in said or "expected one argument" in said
        assert code == 0 or (open_end and missing), said
        return
    if verb in ("cp", "study"):
        name = arguments.experiment if verb == "cp" else arguments.study
        known = conf.names("experiment" if verb == "cp" else "study")
        assert name in known or name.isupper() or name.endswith(".yaml")


def check_training(words: list[str]) -> None:
    plain = [word for word in words if not word.startswith("-") and "=" in word]
    flags = [word for word in words if word.startswith("-")]
    assert set(flags) <= {"--cfg", "--multirun", "--config-dir", "--help", "-h"}
    if "--config-dir" in flags:
        return  # names of one's own
    named = {key: value for key, _, value in (word.partition("=") for word in plain)}
    if any(named.get(key, "").isupper() or "," in named.get(key, "") for key in (*GROUPS, "seed")):
        return
    if not {"experiment", "model"} & set(named):
        plain.append("experiment=hateful_memes/uniter_tiny")
    if "root" not in named:
        plain.append("root=FOLDER")
    compose(plain)


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "F", "OUT", "--vocabulary", "V", "model.heads=4"],
        ["convert", "--vocabulary", "V", "F", "OUT", "model.heads=4"],
        ["convert", "F", "--vocabulary=V", "OUT", "model.heads=4"],
        ["convert", "F", "OUT", "model.heads=4", "vocabulary=V"],
    ],
)
def test_convert_takes_its_arguments_in_any_order(words: list[str]) -> None:
    found = parsed(parser_of("convert"), words[1:])
    assert (found.source, str(found.out), found.settings) == ("F", "OUT", ["model.heads=4"])
    assert found.vocabulary == "V"


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"train"}))
def test_options_may_stand_anywhere(verb: str) -> None:
    parser = parser_of(verb)
    actions = [action for action in parser._actions if not action.option_strings]
    places = [str(next(iter(one.choices or ["a"]))) for one in actions if one.nargs not in ("?", "*")]
    options = [
        [action.option_strings[0], str(next(iter(action.choices or ["3"])))]
        for action in parser._actions
        if action.option_strings and action.nargs != 0
    ]
    last = parsed(parser, [*places, *chain(*options)])
    assert parsed(parser, [*chain(*options), *places]) == last
    for number in range(len(options)):
        before, after = chain(*options[:number]), chain(*options[number:])
        assert parsed(parser, [*before, *places[:1], *after, *places[1:]]) == last


def test_train_shows_its_help_wherever_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "experiment=hateful_memes/uniter_tiny", "--help"]) == 0
    assert "trainer.max_epochs" in capsys.readouterr().out


def test_commands_that_end_at_once_run(
    memes: Path, boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memes").symlink_to(memes)
    Path("t").mkdir()
    rows = [f"{row},some words,{row % 2},{('train', 'dev')[row > 5]}" for row in range(8)]
    Path("t/labels.csv").write_text("\n".join(["id,text,label,split", *rows]))
    assert boxes.name == "boxes.jsonl"  # what the pages call it
    ran = 0
    for line in COMMANDS:
        verb, *words = shlex.split(line)
        if verb in ("ls", "cp", "check", "clean", "vocabulary") and words and "..." not in words:
            if any(word.isupper() or "X" in word for word in words) or words[0].startswith("-"):
                continue
            again = (
                verb == "clean" and (tmp_path / words[1]).exists()
            )  # with other settings, which is refused
            assert main([verb, *words]) in ((0, 2) if again else (0,)), line
            ran += 1
    assert ran > 5
