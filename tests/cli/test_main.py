import errno
import os
import subprocess
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from diptych import cli
from diptych.cli import VERBS, main
from diptych.errors import FormatError

HEAVY = ("torch", "lightning_fabric", "hydra", "numpy", "pyarrow", "sklearn")


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in VERBS)


@pytest.mark.parametrize("words", [["--help"], ["ls"], ["--version"], *([verb, "--help"] for verb in VERBS)])
def test_help_and_ls_import_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom diptych.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout.strip()


def test_an_unknown_verb_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "'trian'. Did you mean 'train'?" in capsys.readouterr().err


def test_an_unknown_flag_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["world", "out", "--sizes", "3"])
    assert end.value.code == 2
    assert "--sizes" in capsys.readouterr().err


def test_settings_may_be_written_as_train_takes_them(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["world", str(tmp_path / "w"), "size=40", "overwrite=false"]) == 0
    assert "size 40" in capsys.readouterr().out
    assert main(["world", str(tmp_path / "w"), "overwrite=maybe"]) == 2
    assert "overwrite=true or overwrite=false" in capsys.readouterr().err


def raising(error: BaseException):
    def call() -> int:
        raise error

    return call


def test_errors_become_one_line_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.guarded(raising(FormatError("a.tsv:3: bad"))) == 2
    assert capsys.readouterr().err == "diptych: error: a.tsv:3: bad\n"
    assert cli.guarded(raising(KeyboardInterrupt())) == 130
    full = OSError(errno.ENOSPC, "No space left on device", "runs/x")
    assert cli.guarded(raising(full)) == 2
    assert "runs/x" in capsys.readouterr().err
    assert cli.guarded(raising(FileNotFoundError(errno.ENOENT, "No such file or directory", "x"))) == 2
    huge = OSError(errno.EFBIG, "File too large", "runs/y")  # a quota
    assert cli.guarded(raising(huge)) == 2
    assert "runs/y" in capsys.readouterr().err
    assert cli.guarded(raising(OSError(errno.EROFS, "Read-only file system", "z"))) == 2
    assert capsys.readouterr().err == "diptych: error: z: Read-only file system.\n"


WORKER = """Caught KeyError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "site-packages/torch/utils/data/_utils/worker.py", line 3, in _worker_loop
  File "src/diptych/data/collate.py", line 7, in __call__
  File "site-packages/numpy/core.py", line 7, in take
KeyError: 'boxes'
"""


def deep(level: int = 0) -> int:
    return deep(level + 1) + 1


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (raising(ZeroDivisionError("by\nzero")), "in diptych.cli.guarded (ZeroDivisionError: by zero)"),
        (raising(MemoryError()), "(MemoryError)"),
        (raising(AssertionError("x" * 5000)), "x...)"),
        (raising(OSError("no name")), "(OSError: no name)"),
        (raising(RuntimeError(WORKER)), "in diptych.data.collate.__call__ (RuntimeError: KeyError: 'boxes')"),
        (deep, "(RecursionError: maximum recursion depth exceeded"),
    ],
)
def test_a_mistake_of_ours_is_one_line_and_its_traceback_a_file(
    call: Any, shown: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DIPTYCH_DEBUG", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cli.guarded(call) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("diptych: internal error in ")
    assert shown in line
    [file] = tmp_path.iterdir()
    assert line.endswith(f"please report it with {file}.")
    assert "Traceback (most recent call last)" in file.read_text(encoding="utf-8")
    monkeypatch.setenv("DIPTYCH_DEBUG", "1")
    with pytest.raises((Exception, RecursionError)):
        cli.guarded(call)


def test_a_mistake_of_ours_is_told_without_a_place_for_its_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert cli.guarded(raising(ZeroDivisionError())) == 1
    assert "DIPTYCH_DEBUG=1" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "ls", "check", "doctor"])
def test_every_kind_of_verb_has_the_last_net(
    verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = import_module(VERBS[verb].module)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "main" if verb == "train" else "run", lambda _: 1 // 0)
    assert main([verb, *(["memes"] if verb == "check" else [])]) == 1
    assert "(ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("encoding", "sink", "code", "said"),
    [("ascii", "/dev/null", 0, ""), ("utf-8", "/dev/full", 2, "no space left while writing")],
)
def test_output_that_cannot_be_written_is_no_traceback(
    encoding: str, sink: str, code: int, said: str
) -> None:
    script = (
        "import sys\nfrom diptych import cli\n"
        "sys.exit(cli.guarded(lambda: print('\\u00e9', chr(0xdc80), file=sys.stdout) or 0))"
    )
    with open(sink, "w") as out:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=out, stderr=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )  # fmt: skip
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == (1 if said else 0)


def test_the_traceback_of_a_loader_worker_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    text = "Caught FormatError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    text += "  File ...\ndiptych.errors.FormatError: a.png: bad\n"
    assert cli.guarded(raising(FormatError(text))) == 2
    assert capsys.readouterr().err == "diptych: error: a.png: bad\n"


def test_warnings_are_lines_without_code(capsys: pytest.CaptureFixture[str]) -> None:
    def call() -> int:
        warnings.simplefilter("always")
        warnings.warn("mind the gap", stacklevel=1)
        return 0

    before = warnings.showwarning
    assert cli.guarded(call) == 0
    assert capsys.readouterr().err == "diptych: warning: mind the gap\n"
    assert warnings.showwarning is before
