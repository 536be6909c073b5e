"""Build the documentation as a website that needs no network: build/site, from file:// or any server.

python scripts/site.py                 write build/site, strictly: a broken link is an error
python scripts/site.py --stage         write build/docs only, the pages that mkdocs.yml reads

The pages of docs/ are copied, the files beside them (README, CONTRIBUTING, ...) become pages of the part
Project, and two parts are written here: CLI from the parsers, and Reference from the packages.
"""

import argparse
import html
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
DOCS, BUILD = ROOT / "docs", ROOT / "build"
PROJECT = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "CITATION.cff",
    "LICENSE",
    ".importlinter",
)
LINK = re.compile(r"(?<=\]\()[\w./-]+(?=[)#])")
CDN = re.compile(r"https://unpkg\.com/iframe-worker[^\"']*")
CODE = re.compile(r"<code>([^<]+)</code>")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
FOREIGN = re.compile(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?(?:https?:)?//[^\s\">]+")


def project_page(name: str) -> str:
    """Where a file of the root lies in the site, such as `project/contributing.md`."""
    return f"project/{name.strip('.').lower()}" if name.endswith(".md") else f"project/{name.strip('.')}.txt"


def pages() -> dict[str, str]:
    """The text of every page by its path in the site."""
    found = {
        path.relative_to(DOCS).as_posix(): path.read_text("utf-8") for path in sorted(DOCS.rglob("*.md"))
    }
    found = {name: _moved(text, f"docs/{name}") for name, text in found.items()}
    for name in PROJECT:
        if name.endswith(".md"):
            found[project_page(name)] = _moved((ROOT / name).read_text("utf-8"), name)
    return {**found, **dict(command_pages()), **dict(reference_pages())}


def _moved(text: str, source: str) -> str:
    """The links of a page, from where files lie in the repository to where they lie in the site."""
    own = _place(source)

    def link(match: re.Match[str]) -> str:
        # resolved by text: `..` of a relative link must not follow links of the file system
        target = os.path.normpath(PurePosixPath(source).parent / match[0])
        if not (ROOT / target).exists():  # a made page, or text that only looks like a link
            return match[0]
        return os.path.relpath(_place(target), PurePosixPath(own).parent)

    return LINK.sub(link, text)


def _place(path: str) -> str:
    """The path in the site of a file of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in PROJECT:
        return project_page(path)
    if path.startswith("src/diptych/") and path.endswith("/__init__.py"):
        return f"reference/{'.'.join(PurePosixPath(path).parent.parts[1:])}.md"
    return f"reference/{path.removeprefix('src/').removesuffix('.py').replace('/', '.')}.md"


def command_pages() -> Iterator[tuple[str, str]]:
    """One page for each verb, and their overview."""
    from diptych.cli import VERBS

    rows = "".join(f"| [`diptych {name}`]({name}.md) | {verb.summary} |\n" for name, verb in VERBS.items())
    about = "Every page is written from the parser of its command, and says what `--help` says."
    yield "cli/index.md", f"# Command line\n\n{about}\n\n| command | purpose |\n|---|---|\n{rows}"
    for name in VERBS:
        yield f"cli/{name}.md", command_page(name)


def command_page(name: str) -> str:
    from importlib import import_module

    from diptych.cli import VERBS, parser_of

    module = import_module(VERBS[name].module)
    head = f"# diptych {name}\n\n"
    if not hasattr(module, "configure"):  # `train` takes overrides, and prints its own help
        return f"{head}{_sentence(VERBS[name].summary)}\n\n```text\n{module.usage().strip()}\n```\n"
    parser = parser_of(name)
    parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=80)
    about, _, examples = (parser.description or "").partition("try:\n")
    first, _, more = about.strip().partition("\n\n")
    first = first.replace("[", r"\[")  # placeholders such as [@revision], which look like links
    if more:  # it may have columns, which a paragraph would join
        first += f"\n\n```text\n{more.strip()}\n```"
    usage = parser.format_usage().removeprefix("usage: ").strip()
    lines = [head, first, f"\n\n## Usage\n\n```text\n{usage}\n```\n"]
    rows = list(_options(parser))
    if rows:
        lines += ["\n## Arguments\n\n| argument | meaning |\n|---|---|\n", *rows]
    if examples:
        shown = "\n".join(line.removeprefix("  ") for line in examples.rstrip().splitlines())
        lines += [f"\n## Examples\n\n```text\n{shown}\n```\n"]
    return "".join(lines)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    # argparse has no public list of a parser's arguments
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield f"| **`{name}`** | {_sentence(sub.description or name)} |\n"
                yield from _options(sub)
        elif action.dest != "help":
            names = ", ".join(f"`{flag}`" for flag in action.option_strings) or f"`{action.dest.upper()}`"
            value = "" if action.nargs == 0 or not action.option_strings else f" {_value(action)}"
            text = (action.help or "").replace("%%", "%").replace("|", "\\|")
            yield f"| {names}{html.escape(value)} | {text} |\n"


def _value(action: argparse.Action) -> str:
    if action.choices:
        return "{" + ",".join(map(str, action.choices)) + "}"
    metavar = action.metavar or action.dest.upper()
    return " ".join(metavar) if isinstance(metavar, tuple) else metavar


def _sentence(text: str) -> str:
    text = text.strip().splitlines()[0].rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def reference_pages() -> Iterator[tuple[str, str]]:
    """One page for each package, with what it offers."""
    api = runpy.run_path(str(ROOT / "scripts" / "api.py"))
    rows = []
    for package in api["packages"]():
        names = api["offered"](package)
        members = "\n".join(f"        - {name}" for name in names)
        options = f"    options:\n      members:\n{members}\n"
        rows.append(f"| [`{package}`]({package}.md) | {api['summary'](package)} |\n")
        yield f"reference/{package}.md", f"# {package}\n\n::: {package}\n{options}"
    about = (
        "The public interface: what each package offers. [Versions](../versions.md) says what that promises."
    )
    table = f"| package | content |\n|---|---|\n{''.join(rows)}"
    yield "reference/index.md", f"# Reference\n\n{about}\n\n{table}"


def navigation() -> dict[str, str]:
    """Title by path of every page in the navigation of mkdocs.yml; an empty one where it has none."""
    content = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    return dict(_entries(content["nav"]))


def _entries(tree: list[Any]) -> Iterator[tuple[str, str]]:
    for entry in tree:
        for title, value in entry.items() if isinstance(entry, dict) else [("", entry)]:
            if isinstance(value, list):
                yield from _entries(value)
            else:
                yield value, title


def for_programs(texts: dict[str, str]) -> str:
    """`llms.txt`: every page with its first sentence, for programs that read the documentation."""
    lines = ["# diptych", "", "> " + _first(texts["index.md"]), ""]
    for path, title in navigation().items():
        heading = re.search(r"^# (.+)$", texts[path], re.MULTILINE)
        name = title or (heading[1] if heading else path)
        about = _first(texts[path])
        lines.append(f"- [{name}]({path.removesuffix('.md')}.html){f': {about}' if about else ''}")
    return "\n".join(lines) + "\n"


def _first(text: str) -> str:
    """The first sentence of the first paragraph, without links and marks."""
    for block in text.split("\n\n"):
        if block and block[0] not in "#|:`!<-" and not block.startswith("    "):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(block.split()))
            return re.split(r"(?<=[.:?])\s", plain)[0].replace("`", "").replace("*", "")
    return ""


def stage(folder: Path) -> dict[str, str]:
    """Write the pages and what they show to a new folder; returns their text."""
    shutil.rmtree(folder, ignore_errors=True)
    texts = pages()
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name in PROJECT:
        if not name.endswith(".md"):
            shutil.copyfile(ROOT / name, folder / project_page(name))
    for part in ("images", "assets"):
        shutil.copytree(DOCS / part, folder / part)
    # the files that its pages offer
    shutil.copytree(
        DOCS / "operate", folder / "operate", ignore=shutil.ignore_patterns("*.md"), dirs_exist_ok=True
    )
    return texts


def mark_options(page: str) -> str:
    """A page whose options in inline code are marked, so that the style sheet can keep each in one line."""
    return CODE.sub(lambda code: OPTION.sub(r'<span class="option">\g<0></span>', code[0]), page)


def without_network(site: Path) -> list[str]:
    """Finish the pages: they load the copy of the one script that the theme takes from a server.

    Returns what they still load from a server, which must be nothing.
    """
    left = []
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        local = os.path.relpath(site / "assets" / "iframe-worker.js", path.parent)
        text = mark_options(CDN.sub(local, text))
        path.write_text(text, encoding="utf-8")
        left += [f"{path.relative_to(site)}: {found}" for found in FOREIGN.findall(text)]
    return left


def main(argv: list[str]) -> int:
    texts = stage(BUILD / "docs")
    if argv == ["--stage"]:
        return 0
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--clean"]
    done = subprocess.run([*command, "--config-file", str(ROOT / "mkdocs.yml")], cwd=ROOT)
    if done.returncode:
        return done.returncode
    site = BUILD / "site"
    (site / "llms.txt").write_text(for_programs(texts), encoding="utf-8")
    if left := without_network(site):
        sys.stderr.write("these pages load something from a server:\n" + "\n".join(left) + "\n")
        return 1
    sys.stdout.write(f"{len(texts)} pages in {site.relative_to(ROOT)}; open {site / 'index.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
