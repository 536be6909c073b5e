"""Documentation cannot lie: what it shows is run, what it names exists.

A block fenced as `python` or `console` is a passage of a file in docs/snippets, and those files are run.
What cannot be run here (installing, somebody's own data) is fenced as `sh`; the verbs, targets and
experiments it names exist.
"""

import re
import shutil
from pathlib import Path

import pytest
from tests.architecture.snippets import run

from diptych.cli import VERBS
from diptych.conf import names

ROOT = Path(__file__).parents[2]
SNIPPETS = ROOT / "docs" / "snippets"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
EXECUTED = {"python": ".py", "console": ".sh"}


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[tuple[str, str]]:
    """Language and content of the fenced blocks of a page."""
    return FENCE.findall(path.read_text(encoding="utf-8"))


def commands(content: str) -> str:
    """The lines typed in a console block, without the prompt and without what is printed."""
    return "\n".join(line[2:] for line in content.splitlines() if line.startswith("$ "))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_blocks_are_passages_of_snippets(page: Path) -> None:
    sources = {suffix: [p.read_text() for p in SNIPPETS.glob(f"*{suffix}")] for suffix in EXECUTED.values()}
    for language, content in blocks(page):
        if language in EXECUTED:
            shown = content.strip() if language == "python" else commands(content)
            assert shown, f"{page_id(page)}: a console block shows no line that begins with '$ '"
            assert any(shown in source for source in sources[EXECUTED[language]]), (
                f"{page_id(page)}: no file of docs/snippets holds\n{shown}"
            )


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_verbs_targets_and_experiments_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = "\n".join([*(content for _, content in blocks(page)), *re.findall(r"`([^`\n]+)`", text)])
    for verb in re.findall(r"^(?:\$ )?diptych ([a-z][a-z-]*)", code, re.MULTILINE):
        assert verb in VERBS, f"{page_id(page)}: diptych {verb}"
    for target in re.findall(r"^(?:\$ )?make ([a-z]+)", code, re.MULTILINE):
        assert target in targets, f"{page_id(page)}: make {target}"
    ours = re.sub(r"^python .*", "", code, flags=re.MULTILINE)  # what originals are told
    for name in re.findall(r"experiment=([\w/]+)", ours):
        assert name in names("experiment") or name.startswith("my/"), f"{page_id(page)}: experiment={name}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_resolve(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page_id(page)}: {target}"


def test_index_links_every_page() -> None:
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert name == "index.md" or f"]({name})" in text, f"docs/index.md does not link {name}"


@pytest.mark.journey
@pytest.mark.timeout(1800)  # many commands, one after the other
def test_snippets_run(tmp_path: Path) -> None:
    """In the order of their names, in one folder, where later ones find what earlier ones made."""
    folder = shutil.copytree(SNIPPETS, tmp_path / "snippets")
    for snippet in sorted(folder.iterdir()):
        snippet.write_text(smaller(snippet.read_text(encoding="utf-8")))
        log = tmp_path / f"{snippet.name}.log"
        assert run(snippet, tmp_path, log) == 0, f"{snippet.name}\n{log.read_text()[-6000:]}"


def smaller(text: str) -> str:
    """A smaller world and fewer epochs than shown: what is tested is that the commands fit together."""
    text = text.replace("--size 2000", "--size 200")
    return re.sub(r"^diptych train (?!.*max_epochs).*$", r"\g<0> trainer.max_epochs=1", text, flags=re.M)
