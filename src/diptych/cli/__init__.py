"""The command line: `diptych VERB ...`.

The verb table is data. A verb's module is imported only when that verb is called, and it imports heavy
libraries only when it runs. `--help` and `ls` therefore start without PyTorch.
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


# Strings and no imports: what is imported here, every `--help` pays for.
class Verb(NamedTuple):
    """An entry of the table; `module` defines `configure(parser)` and `run(arguments)`, or `main(argv)`."""

    summary: str
    module: str


VERBS = {  # in the order of a newcomer's work, which is also the order of `--help`
    "demo": Verb("the whole journey on a miniature data set, offline", "diptych.cli.demo"),
    "world": Verb("make a miniature of a data set, offline", "diptych.cli.world"),
    "check": Verb("find problems in a data set before training does", "diptych.cli.check"),
    "clean": Verb("make training views without duplicates, with a report", "diptych.cli.clean"),
    "import": Verb("turn region features of any format into a feature store", "diptych.cli.import_"),
    "export": Verb("write a feature store as TSV, LMDB, NPZ or HDF5", "diptych.cli.export"),
    "extract": Verb("extract region features from pictures", "diptych.cli.extract"),
    "ocr": Verb("read the words in pictures, and measure how well", "diptych.cli.ocr"),
    "embed": Verb("embed pictures and texts with a model, once, for heads", "diptych.cli.embed"),
    "fetch": Verb("get published encoders, from packages or the hub", "diptych.cli.fetch"),
    "convert": Verb("convert a public checkpoint to a bundle, or inspect a file", "diptych.cli.convert"),
    "push": Verb("publish a bundle with its model card on the hub", "diptych.cli.push"),
    "pull": Verb("fetch a bundle from the hub", "diptych.cli.pull"),
    "fasttext": Verb("train sentence vectors on the texts of a data set", "diptych.cli.fasttext"),
    "vocabulary": Verb("learn a WordPiece vocabulary from the texts of a data set", "diptych.cli.vocabulary"),
    "answers": Verb("make the list of answers of a question data set", "diptych.cli.answers"),
    "train": Verb("train a model, or resume an interrupted run", "diptych.cli.train"),
    "study": Verb("train, predict and blend many models; resumes after any stop", "diptych.cli.study"),
    "predict": Verb("score splits of a data set, or one meme", "diptych.cli.predict"),
    "retrieve": Verb("rank texts for images and images for texts of a split", "diptych.cli.retrieve"),
    "translate": Verb("translate a split and measure it with BLEU and chrF", "diptych.cli.translate"),
    "score": Verb("score a picture and its text with a model or a study", "diptych.cli.score"),
    "memory": Verb("teach a model by examples, without training", "diptych.cli.memory"),
    "explain": Verb("say why a model answers as it does, and where it looks", "diptych.cli.explain"),
    "import-scores": Verb("make a member of another program's answers", "diptych.cli.import_scores"),
    "ensemble": Verb("average prediction files, or fit a blend", "diptych.cli.ensemble"),
    "evaluate": Verb("metrics with confidence intervals, comparisons, curves", "diptych.cli.evaluate"),
    "calibrate": Verb("make a policy: allow, review or block, with promises", "diptych.cli.calibrate"),
    "cascade": Verb("ask expensive members only where cheap ones are unsure", "diptych.cli.cascade"),
    "drift": Verb("compare new scores with those of before, without labels", "diptych.cli.drift"),
    "audit": Verb("what can be believed: copies, confounders, baselines", "diptych.cli.audit"),
    "report": Verb("runs, seeds, curves and the audit on one page", "diptych.cli.report"),
    "serve": Verb("answer over HTTP: picture and text in, verdict out", "diptych.cli.serve"),
    "audit-log": Verb("check the audit log of the service", "diptych.cli.audit_log"),
    "ls": Verb("list experiments, models and other settings", "diptych.cli.ls"),
    "cp": Verb("copy an experiment to edit it", "diptych.cli.cp"),
    "doctor": Verb("show versions, devices, extras, and what is missing", "diptych.cli.doctor"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        Exit code: 0 for success, 1 for problems found by a check or an internal error, 2 for errors in
        arguments or input files, 130 after Ctrl-C.
    """
    # By default idle OpenMP threads spin and occupy a core, so training on a busy machine takes four times
    # as long. The policy changes no result. OpenMP reads it once, when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    argv = list(sys.argv[1:] if argv is None else argv)
    # Without a verb, show the overview instead of an error: it is what a newcomer tries first.
    return guarded(lambda: _call(argv[0], argv[1:]) if argv else _call("help", []))


def _call(name: str, argv: list[str]) -> int:
    if name in ("-h", "--help", "help"):
        # Flushed inside of `guarded`, so that a closed pipe is noticed there.
        print(overview(), flush=True)
        return 0
    if name in ("-V", "--version"):
        print(f"diptych {__version__}")
        return 0
    if name not in VERBS:
        raise ConfigError(f"there is no verb {name!r}.{nearest(name, VERBS)} `diptych --help` lists them.")
    module = import_module(VERBS[name].module)
    if hasattr(module, "main"):  # parses its own arguments: `train` takes Hydra overrides
        return int(module.main(argv))
    return int(module.run(parsed(parser_of(name), argv)))


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of a verb that does not parse its own arguments."""
    module = import_module(VERBS[name].module)
    parser = argparse.ArgumentParser(
        prog=f"diptych {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # keeps the line breaks of the examples
        allow_abbrev=False,  # scripts that abbreviate break when a verb gets another option
    )
    module.configure(parser)
    return parser


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse options and positional arguments in any order; `key=value` works as it does with `train`."""
    # Intermixed: plain argparse refuses positional arguments on both sides of an option.
    return parser.parse_intermixed_args(list(_flags(argv, parser)))


def _flags(argv: Sequence[str], parser: argparse.ArgumentParser) -> Iterator[str]:
    """Translate `size=9` and `overwrite=true` to `--size=9` and `--overwrite`."""
    # argparse has no public list of a parser's options
    options = {flag: action for action in parser._actions for flag in action.option_strings}
    for word in argv:
        key, equals, value = word.partition("=")
        flag = f"--{key.replace('_', '-')}"
        if not equals or key.startswith("-") or flag not in options:
            yield word  # also a file name that contains `=`
        # An option of `nargs` 0 is a switch, which takes no value.
        elif options[flag].nargs != 0:
            yield f"{flag}={value}"
        elif value.lower() == "true":
            yield flag
        elif value.lower() != "false":
            raise ConfigError(f"{word!r}: expected {key}=true or {key}=false.")


def guarded(call: Callable[[], int]) -> int:
    """Return the exit code of `call`; print errors as one line on stderr.

    Errors that a user can fix give exit code 2. Any other error is a bug in diptych: its traceback goes to a
    file, or to the screen with DIPTYCH_DEBUG=1.
    """
    for stream in (sys.stdout, sys.stderr):  # the terminal's encoding may lack characters of a meme's text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _plain_warnings():
            code = call()
            sys.stdout.flush()  # a closed pipe or a full disk must raise here, not when Python exits
            return code
    # Only these are written for users; the class decides, never the text.
    except DiptychError as error:
        return complain(_without_trace(error))
    except KeyboardInterrupt:
        print("\nstopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _close_output()  # `diptych ls | head` closes the pipe early; that is not an error
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            _close_output()
            where = error.filename or "the disk"
            return complain(f"no space left while writing {where}; incomplete files were removed.")
        if isinstance(error, OSError) and error.filename is not None:  # missing, or no permission
            return complain(f"{error.filename}: {error.strerror}.")
        if os.environ.get("DIPTYCH_DEBUG") == "1":
            raise
        print(f"diptych: {report_internal(error)}", file=sys.stderr)
        return 1


def _close_output() -> None:
    """Send buffered output to the null device; Python would fail to flush it at exit and print an error."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print `UserWarning`s as one line; others keep Python's format."""

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, UserWarning):  # for users; DeprecationWarning is for developers
            print(f"diptych: warning: {message}", file=sys.stderr)
        else:
            before(message, category, *place, **more)

    with warnings.catch_warnings():
        # `catch_warnings` restores the old function, also for the steps of `demo`,
        # which call verbs in one process.
        before, warnings.showwarning = warnings.showwarning, show
        # diptych reports huge pictures itself, with the file name
        warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb")
        yield


def _without_trace(error: DiptychError) -> str:
    """Return the message alone; PyTorch prepends the traceback to errors of loader workers."""
    text = str(error)
    kind = f"{type(error).__module__}.{type(error).__qualname__}: "
    # The message follows the last mention of the error's class in the traceback.
    return text.rpartition(kind)[2].strip() if "Original Traceback" in text else text  # else: no worker


def complain(message: str) -> int:
    """Print an error as all verbs do; returns exit code 2."""
    print(f"diptych: error: {visible(message)}", file=sys.stderr)
    return 2


def overview() -> str:
    """Return the text of `diptych --help`."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        f"diptych {__version__}: a picture and its text\n\n"
        "usage: diptych VERB ...          diptych VERB --help\n\n"
        f"{verbs}\n\n"
        "First time? `diptych demo` shows everything on a miniature data set in a few minutes."
    )
