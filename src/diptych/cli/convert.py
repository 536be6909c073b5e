"""Convert a third-party checkpoint to a bundle, or inspect it. Tensors, not file names, tell what it is.

SOURCE is a file, a folder (of Hugging Face, or the params of Paddle), hub:owner/name[@revision][/file],
https://...[#sha256=...], or a name from --list. Settings follow as KEY=VALUE; KEY=@FILE reads a list of names
from a file, one per line.

try:
  diptych convert LASTtrain.pth bundles/u36 --vocabulary vocab.txt
  diptych convert --inspect LASTtrain.pth
  diptych convert hub:unc-nlp/lxmert-base-uncased bundles/lxmert
  diptych convert hub:unc-nlp/lxmert-vqa-uncased bundles/vqa --answers trainval_label2ans.json
  diptych convert small.pt bundles/small --vocabulary vocab.txt model.heads=4 task.answers=@answers.txt
  diptych convert --back bundles/u36 original.safetensors
  diptych convert --list
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from diptych.cli.options import add_json, add_overwrite
from diptych.cli.output import as_json, progress, table
from diptych.documents import shorten
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.convert import Inspection


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", help="the weights; with --back, a bundle")
    parser.add_argument("out", nargs="?", type=Path, help="a new folder; with --back, a new file")
    parser.add_argument("settings", nargs="*", help="model.KEY=VALUE, processor.KEY=VALUE, task.KEY=VALUE")
    parser.add_argument("--inspect", action="store_true", help="report what the file is; write nothing")
    parser.add_argument(
        "--back", action="store_true", help="write a bundle's weights under the original names"
    )
    parser.add_argument("--list", action="store_true", help="list public files: source, size, status")
    parser.add_argument("--vocabulary", help="the vocabulary of the weights (default: the one beside them)")
    parser.add_argument(
        "--answers", type=Path, help="table of the answers of a head: JSON, or one answer per line"
    )
    parser.add_argument("--family", help="expected model family; files of another one are an error")
    parser.add_argument("--head", help="the head that becomes the task, if the file has several")
    add_overwrite(parser, "replace what exists")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.list:
        return _list(as_text=not arguments.json)
    # Both are optional for argparse, because --list needs neither.
    if arguments.source is None or (arguments.out is None and not arguments.inspect):
        raise ConfigError("expected SOURCE and OUT; `diptych convert --help` shows examples.")
    from diptych.convert import convert_checkpoint, inspect_checkpoint, restore_checkpoint

    if arguments.back:
        count = restore_checkpoint(arguments.source, arguments.out, overwrite=arguments.overwrite)
        print(f"{arguments.out}: {count} tensors under their original names")
        return 0
    with progress(f"downloading {arguments.source}") as advance:
        if arguments.inspect:
            # no OUT is needed, so the first setting takes its place among the positional arguments
            words = [*filter(None, (arguments.out and str(arguments.out),)), *arguments.settings]
            inspection = inspect_checkpoint(
                arguments.source,
                vocabulary=arguments.vocabulary,
                answers=arguments.answers,
                overrides=_overrides(words),
                progress=advance,
            )
            _show(inspection, arguments.json, groups=True)
            return 0
        report = convert_checkpoint(
            arguments.source,
            arguments.out,
            vocabulary=arguments.vocabulary,
            family=arguments.family,
            head=arguments.head,
            answers=arguments.answers,
            overrides=_overrides(arguments.settings),
            overwrite=arguments.overwrite,
            progress=advance,
        )
    _show(report, arguments.json)
    if not arguments.json:
        print(f"full report: {arguments.out / 'README.md'}")
    return 0


def _show(report: "Inspection", for_programs: bool, *, groups: bool = False) -> None:
    if for_programs:
        as_json(report.as_dict())
        return
    sizes = [f"{name}={value}" for name, value in report.model.items() if name != "_target_"]
    rows: list[tuple[str, object]] = [
        ("source", f"{report.source} ({report.kind})"),
        ("family", report.family or "unknown"),
        ("reason", report.reason),
        ("model", f"{report.model.get('_target_', '-')}({', '.join(sizes)})"),
        ("tensors", f"{report.tensors}, {report.parameters:,} numbers, {report.dtypes}"),
        ("head", " becomes ".join(report.head) if report.head else "none was converted to a task"),
    ]
    rows += [
        (f"left out: {len(names)}", f"{reason} ({names[0]})") for reason, names in report.dropped.items()
    ]
    # One name per reason: a large model has hundreds, which the README of the bundle counts.
    rows += [(f"initialized: {len(names)}", f"{reason} ({names[0]})") for reason, names in report.new.items()]
    rows += [
        (name, f"{shorten(value)} ({why})")
        for name, (value, why) in report.settings.items()
        if not name.startswith("model.")
    ]
    if groups:
        rows += [(name, f"{tensors} tensors, {count:,}") for name, (tensors, count) in report.groups.items()]
    table("", ["", ""], rows)


def _list(*, as_text: bool) -> int:
    from diptych.convert import checkpoints

    listed = checkpoints()
    if not as_text:
        as_json(listed)
        return 0
    rows = [
        # Without the query of a URL, which would fill a line.
        (name, entry["family"], entry.get("source", entry.get("package", "")).partition("?")[0],
         f"{entry['bytes']:,}" if "bytes" in entry else "-", entry.get("sha256", "-")[:12], entry["status"])
        for name, entry in listed.items()
    ]  # fmt: skip
    table("", ["name", "family", "source", "bytes", "SHA-256", "status"], rows)
    return 0


def _overrides(words: list[str]) -> dict[str, Any]:
    """The value of each setting by its full name, such as `model.heads`."""
    settings: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or "." not in key:
            raise ConfigError(f"{word!r}: expected model.KEY=VALUE, processor.KEY=VALUE or task.KEY=VALUE.")
        # Dotted keys stay whole: `diptych.convert.nested` makes nodes of them.
        settings[key] = _lines(Path(value[1:])) if value.startswith("@") else _value(word, value)
    return settings


def _value(word: str, value: str) -> Any:
    from diptych.text.tokenizer import SPECIAL_TOKENS

    if value in SPECIAL_TOKENS:  # YAML reads `[MASK]` as a list
        return value
    try:
        # As in the YAML files: 4 is a number, [a,b] a list, null is None.
        # `safe_load` makes plain values only.
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"{word!r}: the value is not YAML.") from error


def _lines(path: Path) -> list[str]:
    """Read names, one per line."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; expected a file with one name per line.")
    return path.read_text(encoding="utf-8-sig").splitlines()
