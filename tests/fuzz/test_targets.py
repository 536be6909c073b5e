"""Every format and every module that reads files has a target: a new one without fails here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.features.originals import ORIGINALS
from tests.fuzz.case import TARGETS
from tests.fuzz.trial import load

from diptych.convert.load import SUFFIXES

load()
PACKAGE = Path(__file__).parents[2] / "src" / "diptych"
TRIED = {one for target in TARGETS.values() for one in target.reads}
READERS = {
    *(
        "open",
        "read_text",
        "read_bytes",
        "read_json",
        "read_yaml",
        "parse_json",
        "parse_yaml",
        "safe_load",
        "load",
    ),
    *(
        "loads",
        "load_file",
        "safe_open",
        "memory_map",
        "open_file",
        "ZipFile",
        "File",
        "reader",
        "DictReader",
    ),
    *("from_pretrained", "Unpickler", "read_array"),
}
UNTRIED = {
    "detect.vectors": "reads settings by `documents` and pictures by `images`; weights as `detect.grid` does",
    "recipe.heads": "reads by `predictions`",
    "datasets.rows": "decodes tables that `datasets.examples` wrote",
    "data.inputs": "sums bytes, whatever they are",
    "predict.splits": "reads by `predictions`",
    "predict.joined": "reads by `predict.splits`",
    "cli.check": "opens data sets and stores, which have targets of their own",
    "predict.partial": "reads its own record and table; tests/predict/test_retrieval.py damages both",
    "predict.retrieval": "reads its own report, by `documents` and `predictions`",
    "cli.retrieve": "loads models as `cli.predict` does",
    "cli.ocr": "opens data sets, which have targets of their own",
    "cli.robust": "loads models as `cli.predict` does",
    "audit.attacks": "reads a picture that it has just compressed",
    "detect.rapid": "reads answers of its own process; damaged ones in tests/detect/test_rapid.py",
    "detect.spaces": "reads one word per line; damaged lists in tests/detect/test_spaces.py",
    "detect.rapid_worker": "reads what `detect.rapid` sends",
    "cli.subject": "loads models as `cli.predict` does",
    "explain.planted": "reads lines by `documents`; damaged ones in tests/explain/test_planted.py",
    "cli.explain": "loads models as `cli.predict` does",
    "audit.sheet": "opens data sets, which have targets of their own",
    "cli.audit": "reads policies as `cli.score` does",
    "report.markup": "reads the styles that come with diptych",
    "convert.packages": "takes files of a known size and SHA-256 only",
    "cli.memory": "loads models as `cli.predict` does, and memories by `memory.store`",
    "memory.ask": "sums the bytes of a picture, whatever they are; loads models as `cli.predict` does",
    "report.evidence": "reads the templates that come with diptych",
    "report.attention": "reads the template that comes with diptych",
    "cli.translate": "loads models as `cli.predict` does",
    "predict.translate": "reads a journal of our own; damaged ones in tests/cli/test_translate.py",
    "cli.push": "reads policies by `calibrate.policy`",
    "convert.report": "writes cards; reads a table of our own",
    "cli.ensemble": "reads by `ensemble.members`",
    "convert.open_clip": "reads by `documents`; wrong values in tests/convert/test_clip.py",
    "predict.towers": "loads models as `cli.predict` does",
    "datasets.emoji.world": "writes",
    "datasets.table.world": "writes",
    "datasets.conceptual_captions.world": "writes",
    "datasets.catalog": "reads the configuration that comes with diptych",
    "conf": "reads the configuration that comes with diptych",
    "cli.cp": "copies the configuration that comes with diptych",
    "convert.fetch": "downloads, then `convert.load`; archives in tests/convert/test_fetch.py",
    "documents": "called by the readers; tests/test_documents.py",
    "report.figures": "reads results of our own for a drawing, on the command line of nobody",
    "report.memes": "draws pictures that have been read before",
    "scale.ray": "passes values between our own processes",
    "scale.shards": "loads models as `cli.predict` does",
    "client": "reads answers of the service; tests/serve/test_server.py",
    "serve.addresses": "reads the page that comes with diptych",
    "serve.models": "loads models as `cli.predict` does",
    "serve.pictures": "hostile pictures in tests/serve/test_soak.py",
    "study.card": "writes a page of what has been read before",
    "world.render": "draws",
}


def called(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Attribute(attr=name) | ast.Name(id=name):
                    yield name


def reading() -> list[str]:
    """Modules that call something that reads."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if READERS & set(called(ast.parse(path.read_text(encoding="utf-8")))):
            found.append(".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"))
    return found


def functions(folder: str) -> list[str]:
    """Names of the functions of a part of the package."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (PACKAGE / folder).glob("*.py"))
    return [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("form", [*ORIGINALS, *SUFFIXES])
def test_every_format_is_tried(form: str) -> None:
    assert form in TRIED


def test_every_reader_of_features_is_tried() -> None:
    readers = {name for name in functions("features") if name.endswith("_entries")} - {"read_entries"}
    assert readers
    assert readers <= TRIED


@pytest.mark.parametrize("module", reading())
def test_every_module_that_reads_is_tried(module: str) -> None:
    assert (module in TRIED) != (module in UNTRIED), (
        "add a target of tests/fuzz that reads with it, or say why not"
    )


def test_targets_name_what_exists() -> None:
    modules = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
    }
    formats = {*ORIGINALS, *SUFFIXES, *functions("features")}
    assert TRIED | set(UNTRIED) <= modules | formats
