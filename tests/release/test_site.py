import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = runpy.run_path(str(ROOT / "scripts" / "site.py"))
NOTEBOOKS = runpy.run_path(str(ROOT / "scripts" / "notebooks.py"))
LINK = re.compile(r"\]\(([\w./-]+\.\w+)(?:#[^)]*)?\)")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages that the website is built from."""
    folder = tmp_path_factory.mktemp("site") / "docs"
    SITE["stage"](folder)
    return folder


def test_the_navigation_has_every_page_once(staged: Path) -> None:
    pages = {path.relative_to(staged).as_posix() for path in staged.rglob("*.md")}
    assert SITE["navigation"]().keys() == pages
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert len(re.findall(r"\.md$", text, re.MULTILINE)) == len(pages)


def test_links_of_the_website_resolve(staged: Path) -> None:
    for page in staged.rglob("*.md"):
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in LINK.findall(prose):
            assert (page.parent / target).exists(), f"{page.relative_to(staged)}: {target}"


def test_every_option_is_on_the_page_of_its_command(staged: Path) -> None:
    page = (staged / "cli" / "evaluate.md").read_text(encoding="utf-8")
    for flag in ("--root", "--split", "--json", "--overwrite"):
        assert f"`{flag}`" in page
    # metavariables such as KEY=VALUE and brackets must not become tags or links
    assert "](" not in (staged / "cli" / "convert.md").read_text(encoding="utf-8")


def test_programs_get_a_list_of_all_pages() -> None:
    lines = SITE["for_programs"](SITE["pages"]()).splitlines()
    assert lines[0] == "# diptych"
    listed = [line for line in lines if line.startswith("- [")]
    assert len(listed) == len(SITE["navigation"]())
    assert any(
        line.startswith("- [Tour](tour.html): Everything on this page runs offline") for line in listed
    )


def test_pages_load_nothing_from_a_server(tmp_path: Path) -> None:
    page = tmp_path / "howto" / "page.html"
    page.parent.mkdir()
    page.write_text(
        '<script src="https://unpkg.com/iframe-worker/shim"></script><a href="https://a.org">a</a>'
    )
    assert SITE["without_network"](tmp_path) == []
    assert 'src="../assets/iframe-worker.js"' in page.read_text()
    page.write_text('<link rel="stylesheet" href="https://fonts.example.org/font.css">')
    (left,) = SITE["without_network"](tmp_path)
    assert "fonts.example.org" in left


def test_an_option_in_a_sentence_is_marked_as_one_word() -> None:
    page = "<code>diptych predict RUN --batch-size 8</code> a--b <pre><code><span>--x</span></code></pre>"
    marked = '<span class="option">--batch-size</span> 8</code> a--b <pre><code><span>--x</span>'
    assert marked in SITE["mark_options"](page)


def test_cells_become_a_notebook(tmp_path: Path) -> None:
    content = NOTEBOOKS["notebook"](
        "# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\nx = 1\n\n\n# %% install\ny = 2\n"
    )
    kinds = [(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]
    assert kinds == [("markdown", "# Title\n\nText."), ("code", "x = 1"), ("code", "y = 2")]
    with pytest.raises(ValueError, match="import os"):
        NOTEBOOKS["notebook"]("import os\n# %%\nx = 1\n")
    assert NOTEBOOKS["main"]([str(tmp_path)]) == 0
    assert len([*tmp_path.glob("*.ipynb")]) == len([*NOTEBOOKS["SCRIPTS"].glob("*.py")]) == 3


@pytest.mark.journey
@pytest.mark.parametrize(("name", "size"), [("first_journey", 80), ("questions", 80), ("calibrate", 600)])
def test_notebooks_run(name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a notebook runs them, cell by cell in one name space, with fewer examples and one epoch."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    text = (NOTEBOOKS["SCRIPTS"] / f"{name}.py").read_text(encoding="utf-8")
    smaller, count = re.subn(r"^SIZE, EPOCHS = .*$", f"SIZE, EPOCHS = {size}, 1", text, flags=re.MULTILINE)
    assert count == 1
    space: dict[str, object] = {}
    for cell in NOTEBOOKS["notebook"](smaller)["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), name, "exec"), space)
