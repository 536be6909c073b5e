"""The public interface as text: every name that a package offers, with its signature or its fields.

python scripts/api.py          write docs/api.txt

Read from the source and not by importing it, so that the text is the same for every version of Python and of
the libraries. A test compares the file with the code: a change of the interface is a change of this file in
the same commit, which the version policy (docs/versions.md) then counts.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = ROOT / "docs" / "api.txt"
PLAIN = ("diptych.cli", "diptych.conf")  # the command line, and a folder of YAML
MODULES = ("diptych.bundle", "diptych.errors", "diptych.predictions")  # public, though they are no packages


@cache
def tree(module: str) -> ast.Module:
    place = ROOT / "src" / Path(*module.split("."))
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def packages() -> list[str]:
    """The dotted names of packages and modules that offer something, the top one first."""
    found = [
        ".".join(path.parent.relative_to(ROOT / "src").parts)
        for path in sorted((ROOT / "src").rglob("__init__.py"))
    ]
    kept = [name for name in found if not name.startswith(PLAIN)]
    return [kept[0], *sorted([*kept[1:], *MODULES])]


def offered(package: str) -> list[str]:
    """The names in the package's `__all__`; of a module, what it defines without an underscore."""
    for node in tree(package).body:
        if isinstance(node, ast.Assign) and any(ast.unparse(name) == "__all__" for name in node.targets):
            names = ast.literal_eval(node.value)
            assert isinstance(names, list)
            return sorted(names)
    defined = [node.name for node in tree(package).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return sorted(name for name in defined if not name.startswith("_"))


def summary(package: str) -> str:
    """The first sentence of the docstring."""
    return (
        (ast.get_docstring(tree(package)) or "")
        .split(". ")[0]
        .partition("\n\n")[0]
        .replace("\n", " ")
        .rstrip(".:")
    )


def definition(module: str, name: str) -> tuple[str, ast.stmt] | None:
    """The module and the statement that defines a name, followed through imports within diptych."""
    for node in ast.walk(tree(module)):
        match node:
            case ast.FunctionDef(name=found) | ast.ClassDef(name=found) if found == name:
                return module, node
            case ast.Assign(targets=[ast.Name(id=found)]) | ast.AnnAssign(target=ast.Name(id=found)):
                if found == name:
                    return module, node
            case ast.ImportFrom(module=source, names=names) if source and source.startswith("diptych"):
                for alias in names:
                    if (alias.asname or alias.name) == name:
                        return definition(source, alias.name)
    return None


def signature(node: ast.FunctionDef, *, method: bool = False) -> str:
    marks = [ast.unparse(mark) for mark in node.decorator_list]
    kept = [mark for mark in marks if mark in ("property", "classmethod", "staticmethod", "contextmanager")]
    arguments = ast.unparse(node.args)
    if method and "staticmethod" not in kept:  # self or cls
        arguments = arguments.partition(", ")[2]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{''.join(f'@{mark} ' for mark in kept)}{node.name}({arguments}){returns}"


def lines(name: str, node: ast.stmt) -> Iterator[str]:
    """A definition in lines: signature, or bases, fields and public methods."""
    match node:
        case ast.FunctionDef():
            yield f"  def {signature(node)}"
        case ast.ClassDef():
            bases = ", ".join(map(ast.unparse, node.bases))
            yield f"  class {name}({bases})" if bases else f"  class {name}"
            for entry in node.body:
                match entry:
                    case ast.AnnAssign(target=ast.Name(id=field)) if not field.startswith("_"):
                        default = f" = {ast.unparse(entry.value)}" if entry.value else ""
                        yield f"    {field}: {ast.unparse(entry.annotation)}{default}"
                    case ast.FunctionDef() if not entry.name.startswith("_") or entry.name == "__init__":
                        yield f"    {signature(entry, method=True)}"
        case ast.AnnAssign():
            yield f"  {name}: {ast.unparse(node.annotation)}"
        case _:  # a constant or an alias: the value may change, the name may not
            yield f"  {name}"


def text() -> str:
    """The whole interface; a package names its own definitions in full, those of another with a pointer."""
    parts = [
        "Public interface of diptych. `make api` writes this file; docs/versions.md says what it promises."
    ]
    for package in packages():
        parts += ["", package]
        for name in offered(package):
            found = definition(package, name)
            if found is None:
                raise SystemExit(f"{package}.{name} is in __all__, but nothing defines it.")
            module, node = found
            if not module.startswith(package) or (package == "diptych" and module != package):
                parts.append(f"  {name} of {module}")
            else:
                parts += lines(name, node)
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    TEXT.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"wrote {TEXT.relative_to(ROOT)}\n")
