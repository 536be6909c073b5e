import errno
import subprocess
import sys
import warnings

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
    assert "no verb 'trian'. Did you mean 'train'?" in capsys.readouterr().err


def test_an_unknown_flag_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["world", "out", "--sizes", "3"])
    assert end.value.code == 2
    assert "--sizes" in capsys.readouterr().err


def test_settings_may_be_written_as_train_takes_them(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["world", str(tmp_path / "w"), "size=40", "overwrite=false"]) == 0
    assert "40 memes" in capsys.readouterr().out
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
    assert "no space left while writing runs/x" in capsys.readouterr().err
    assert cli.guarded(raising(FileNotFoundError(errno.ENOENT, "No such file or directory", "x"))) == 2
    huge = OSError(errno.EFBIG, "File too large", "runs/y")  # a quota
    assert cli.guarded(raising(huge)) == 2
    assert "no space left while writing runs/y" in capsys.readouterr().err
    assert cli.guarded(raising(OSError(errno.EROFS, "Read-only file system", "z"))) == 2
    assert capsys.readouterr().err == "diptych: error: z: Read-only file system.\n"
    with pytest.raises(ZeroDivisionError):  # our own mistakes keep their traceback
        cli.guarded(raising(ZeroDivisionError()))


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
