import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from diptych.errors import ConfigError
from diptych.files import atomic_file, atomic_folder, require_new


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_whole_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    with atomic_file(path, "w", encoding="utf-8", newline="\n") as file:
        file.write("grün\n")
        assert not path.exists()
    assert path.read_bytes() == "grün\n".encode()
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_interrupted_file_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    def interrupted() -> None:
        with atomic_file(path, "w") as file:
            file.write("new")
            raise error

    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(type(error)):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_killed_process_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    script = (
        "import os, signal, sys; from diptych.files import atomic_file\n"
        "with atomic_file(sys.argv[1], 'w') as file:\n"
        "    file.write('new'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -9
    assert path.read_text() == "old"


def test_files_and_folders_get_ordinary_permissions(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        with atomic_file(tmp_path / "file", "w") as file:
            file.write("")
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755


def test_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "bundle"
    with atomic_folder(target) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("content")
        assert not target.exists()
    assert (target / "inner" / "file").read_text() == "content"
    assert names(target.parent) == ["bundle"]


def test_interrupted_folder_leaves_what_was_there(tmp_path: Path) -> None:
    def interrupted() -> None:
        with atomic_folder(target, overwrite=True) as folder:
            (folder / "new").write_text("new")
            raise KeyboardInterrupt

    target = tmp_path / "bundle"
    target.mkdir()
    (target / "mine").write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(target) == ["mine"]
    assert names(tmp_path) == ["bundle"]


def test_existing_folder_is_kept_unless_asked(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    with atomic_folder(target) as folder:  # an empty folder is no loss
        (folder / "first").write_text("")
    with pytest.raises(ConfigError, match="exists and is kept"), atomic_folder(target):
        pass
    with atomic_folder(target, overwrite=True) as folder:
        (folder / "second").write_text("")
    assert names(target) == ["second"]


def test_overwriting_a_file_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "bundle").write_text("a file")
    with atomic_folder(tmp_path / "bundle", overwrite=True) as folder:
        (folder / "new").write_text("")
    assert names(tmp_path / "bundle") == ["new"]


def test_new_means_absent_or_empty(tmp_path: Path) -> None:
    require_new(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    require_new(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    require_new(tmp_path / "file", overwrite=True)
    with pytest.raises(ConfigError, match=r"file exists and is kept; .* overwrite=true"):
        require_new(tmp_path / "file")
    with pytest.raises(ConfigError):
        require_new(tmp_path)
