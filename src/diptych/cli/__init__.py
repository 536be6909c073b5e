"""The command line: `diptych VERB ...`.

The verb table is data. A verb's module is imported when the verb is called, and imports what is heavy when
it runs, so that `--help` and `ls` answer at once.
"""

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NamedTuple

from diptych import __version__
from diptych.cli.output import visible
from diptych.errors import NO_SPACE, ConfigError, DiptychError, nearest, report_internal


class Verb(NamedTuple):
    """One line of the table; `module` holds `configure(parser)` and `run(arguments)`, or `main(argv)`."""

    summary: str
    module: str


VERBS = {
    "demo": Verb("the whole journey on a miniature data set, offline", "diptych.cli.demo"),
    "world": Verb("make a miniature meme data set", "diptych.cli.world"),
    "check": Verb("look for what is wrong with a data set before it costs an hour", "diptych.cli.check"),
    "clean": Verb("training views without copies, with a report", "diptych.cli.clean"),
    "import": Verb("turn region features of any format into a feature store", "diptych.cli.import_"),
    "export": Verb("write a feature store as TSV, LMDB, HDF5, ...", "diptych.cli.export"),
    "extract": Verb("make region features from pictures", "diptych.cli.extract"),
    "convert": Verb("make a bundle of a public checkpoint, or say what a file is", "diptych.cli.convert"),
    "fasttext": Verb("train sentence vectors on the texts of a data set", "diptych.cli.fasttext"),
    "vocabulary": Verb("learn a WordPiece vocabulary from the texts of a data set", "diptych.cli.vocabulary"),
    "train": Verb("train a model; continues where it was stopped", "diptych.cli.train"),
    "study": Verb("many runs as one: train, predict, blend; resumes anywhere", "diptych.cli.study"),
    "predict": Verb("score splits of a data set, or one meme", "diptych.cli.predict"),
    "score": Verb("one meme, by a model or a whole study", "diptych.cli.score"),
    "ensemble": Verb("average prediction files, or fit a blend", "diptych.cli.ensemble"),
    "evaluate": Verb("metrics with confidence intervals, comparisons, curves", "diptych.cli.evaluate"),
    "ls": Verb("what there is: experiments, models, settings", "diptych.cli.ls"),
    "cp": Verb("copy an experiment here to edit it", "diptych.cli.cp"),
    "doctor": Verb("versions, devices, extras, and what is missing for what", "diptych.cli.doctor"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 when all went well, 1 when a check found problems or for a mistake of ours, 2 for mistakes in what
        was asked or given, 130 after Ctrl-C.
    """
    # Else threads that wait for their turn burn a core: training beside other work takes four times as long.
    # Changes no number; must be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    argv = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _call(argv[0], argv[1:]) if argv else _call("help", []))


def _call(name: str, argv: list[str]) -> int:
    if name in ("-h", "--help", "help"):
        print(overview(), flush=True)
        return 0
    if name in ("-V", "--version"):
        print(f"diptych {__version__}")
        return 0
    if name not in VERBS:
        raise ConfigError(f"there is no verb {name!r}.{nearest(name, VERBS)} `diptych --help` lists them.")
    module = import_module(VERBS[name].module)
    if hasattr(module, "main"):  # reads its arguments itself
        return int(module.main(argv))
    return int(module.run(parsed(parser_of(name), argv)))


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of a verb that does not read its arguments itself."""
    module = import_module(VERBS[name].module)
    parser = argparse.ArgumentParser(
        prog=f"diptych {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    return parser


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Options and positional arguments in any order, and options in the way of `train`."""
    return parser.parse_intermixed_args(list(_flags(argv, parser)))


def _flags(argv: Sequence[str], parser: argparse.ArgumentParser) -> Iterator[str]:
    """`size=9` and `overwrite=true` mean `--size 9` and `--overwrite`, as with `train`."""
    options = {flag: action for action in parser._actions for flag in action.option_strings}
    for word in argv:
        key, equals, value = word.partition("=")
        flag = f"--{key.replace('_', '-')}"
        if not equals or key.startswith("-") or flag not in options:
            yield word
        elif options[flag].nargs != 0:
            yield f"{flag}={value}"
        elif value.lower() == "true":
            yield flag
        elif value.lower() != "false":
            raise ConfigError(f"{word!r}: expected {key}=true or {key}=false.")


def guarded(call: Callable[[], int]) -> int:
    """The exit code of `call`; errors become one line on stderr, those that a user can mend with exit code 2.

    Any other is a mistake of ours: its traceback goes into a file, or with DIPTYCH_DEBUG=1 to the screen.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal may know fewer letters than a text has
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _plain_warnings():
            code = call()
            sys.stdout.flush()
            return code
    except DiptychError as error:
        return complain(_without_trace(error))
    except KeyboardInterrupt:
        print("\nstopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _close_output()  # the reader of our output has gone; nothing is wrong with us
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            _close_output()
            where = error.filename or "the disk"
            return complain(f"no space left while writing {where}; nothing half-written is kept.")
        if isinstance(error, OSError) and error.filename is not None:
            return complain(f"{error.filename}: {error.strerror}.")
        if os.environ.get("DIPTYCH_DEBUG") == "1":
            raise
        print(f"diptych: {report_internal(error)}", file=sys.stderr)
        return 1


def _close_output() -> None:
    """Let what is left in the buffer vanish, or Python complains about it when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show warnings of diptych as lines; Pillow's about huge pictures precede our own error and say less."""

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, UserWarning):
            print(f"diptych: warning: {message}", file=sys.stderr)
        else:
            before(message, category, *place, **more)

    with warnings.catch_warnings():
        before, warnings.showwarning = warnings.showwarning, show
        warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb")
        yield


def _without_trace(error: DiptychError) -> str:
    """The error's own words; PyTorch puts the traceback of a loader worker in front of them."""
    text = str(error)
    kind = f"{type(error).__module__}.{type(error).__qualname__}: "
    return text.rpartition(kind)[2].strip() if "Original Traceback" in text else text


def complain(message: str) -> int:
    """Print one error the way all verbs do; returns the exit code 2."""
    print(f"diptych: error: {visible(message)}", file=sys.stderr)
    return 2


def overview() -> str:
    """What `diptych --help` prints."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        f"diptych {__version__}: a picture and its text\n\n"
        "usage: diptych VERB ...          diptych VERB --help\n\n"
        f"{verbs}\n\n"
        "First time? `diptych demo` shows everything on a miniature data set in a few minutes."
    )
