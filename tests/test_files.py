import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from diptych import files
from diptych.errors import ConfigError
from diptych.files import HEADS, MARK, atomic_file, atomic_folder, claimed, require_name, require_new


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


def make(path: Path, *files: str, kind: str | None = "a thing", overwrite: bool = False) -> None:
    with atomic_folder(path, kind=kind, overwrite=overwrite) as folder:
        for name in files:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("new")


def test_interrupted_folder_leaves_what_was_there(tmp_path: Path) -> None:
    def interrupted() -> None:
        with atomic_folder(target, kind="a thing", overwrite=True) as folder:
            (folder / "new").write_text("new")
            raise KeyboardInterrupt

    target = tmp_path / "bundle"
    make(target, "mine")
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(target) == [MARK, "mine"]
    assert names(tmp_path) == ["bundle"]


def test_existing_folder_is_kept_unless_asked(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    make(target, "first", "inner/file")  # an empty folder is no loss
    with pytest.raises(ConfigError, match=r"bundle .*overwrite=true"):
        make(target, "second")
    make(target, "second", overwrite=True)
    assert names(target) == [MARK, "second"]
    assert names(tmp_path) == ["bundle"]


def strange_file(path: Path) -> None:
    (path / "inner" / "thesis.txt").write_text("years")


def strange_link(path: Path) -> None:
    (path / "link").symlink_to(path.parent)


def no_mark(path: Path) -> None:
    (path / MARK).unlink()


def foreign_mark(path: Path) -> None:
    (path / MARK).write_text('["kind", "files"]')


def pipe_for_mark(path: Path) -> None:
    (path / MARK).unlink()
    os.mkfifo(path / MARK)


def only_a_file(path: Path) -> None:
    for one in (*path.glob("inner/*"), *path.glob("*.*"), path / "inner", path):
        one.rmdir() if one.is_dir() else one.unlink()
    path.write_text("mine")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (strange_file, r"inner/thesis\.txt, "),
        (strange_link, " link, "),
        (no_mark, MARK),
        (foreign_mark, MARK),
        (pipe_for_mark, MARK),
        (only_a_file, MARK),
    ],
)
def test_a_folder_that_the_command_did_not_write_is_never_replaced(
    tmp_path: Path, change: Any, named: str
) -> None:
    target = tmp_path / "bundle"
    make(target, "inner/file")
    change(target)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=named):
        make(target, "second", overwrite=True)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_a_folder_of_another_kind_or_of_none_is_never_replaced(tmp_path: Path) -> None:
    make(tmp_path / "one", "file", kind="another thing")
    make(tmp_path / "two", "file", kind=None)
    for name in ("one", "two"):
        with pytest.raises(ConfigError, match=rf" a thing .*{MARK}"):
            make(tmp_path / name, "second", overwrite=True)


def test_the_working_folder_its_parents_and_inputs_are_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "a", "b/file")
    monkeypatch.chdir(tmp_path / "a" / "b")
    for place in (".", "..", "../../a", tmp_path / "a", "../b"):
        with pytest.raises(ConfigError, match="working folder"):
            make(Path(place), "second", overwrite=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for place in ("a", "link", "link/b", "a/b/file"):
        with pytest.raises(ConfigError, match=rf"^{place} .* a/b/file, "):
            require_new(Path(place), overwrite=True, kind="a thing", inputs=["a/b/file"])
    assert names(tmp_path / "a") == [MARK, "b"]


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    make(tmp_path / "disk", "first")
    (tmp_path / "link").symlink_to("disk")
    make(tmp_path / "link", "second", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "disk") == [MARK, "second"]
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"dangling .*overwrite=true"):
        require_new(tmp_path / "dangling")


HEADS_OF_OTHERS = (b"mine", b"{}", b"a,b\n", b"PK\x03\x04 a document", b"%PDF", b"\x80\x02.")


@pytest.mark.parametrize("kind", HEADS)
def test_a_file_of_another_kind_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    for content in HEADS_OF_OTHERS:
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"file .* {kind} "):
            require_new(path, overwrite=True, kind=kind)
    path.write_bytes(b"")
    require_new(path, overwrite=True, kind=kind)
    with pytest.raises(ConfigError, match=r"file .*overwrite=true"):
        require_new(path)
    path.unlink()
    path.mkdir()
    (path / "mine").touch()
    with pytest.raises(ConfigError, match=rf"file .* {kind} "):
        require_new(path, overwrite=True, kind=kind)


KILLED = """
import os, signal, sys
from pathlib import Path
from diptych import files
changes, at = 0, int(sys.argv[2])

def hook(event, arguments):
    global changes
    if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"):
        changes += str(arguments[0]).startswith(sys.argv[1])
        if changes == at:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
with files.atomic_folder(sys.argv[1] + "/bundle", kind="a thing", overwrite=True) as folder:
    (folder / "second").write_text("new")
"""


@pytest.mark.slow
def test_a_kill_at_any_change_leaves_one_of_both_and_the_next_run_sweeps(tmp_path: Path) -> None:
    target, code, kills = tmp_path / "bundle", -9, 0
    while code == -9:
        kills += 1
        for one in list(tmp_path.iterdir()):
            shutil.rmtree(one) if one.is_dir() else one.unlink()
        make(target, "first")
        code = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(kills)]).returncode
        whole = [[MARK, "first"], [MARK, "second"]]
        assert any(names(one) in whole for one in (target, tmp_path / ".bundle.replaced") if one.exists())
        if code == -9 and not target.exists():  # then a call that may not replace it takes it back
            with pytest.raises(ConfigError, match=r"bundle .*overwrite=true"):
                make(target, "third")
            assert names(target) == [MARK, "first"]
        make(target, "third", overwrite=True)
        assert names(tmp_path) == ["bundle"]
        assert names(target) == [MARK, "third"]
    assert code == 0
    assert kills > 8


def test_the_fragment_of_a_killed_process_is_swept(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from diptych.files import atomic_file\n"
        "with atomic_file(sys.argv[1], 'w') as file:\n"
        "    file.write('longer than new'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "file")])
    assert names(tmp_path) == [".file.part"]
    with atomic_file(tmp_path / "file", "w") as file:
        file.write("new")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "new"


HOLDING = """
import sys
from diptych import files
with {call}:
    print("holding", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    "call",
    [
        "files.atomic_file(sys.argv[1])",
        "files.atomic_folder(sys.argv[1], kind='a thing')",
        "files.reserved(sys.argv[1])",
    ],
)
def test_of_two_processes_one_is_told_that_the_other_writes(tmp_path: Path, call: str) -> None:
    path = tmp_path / "result"
    enter = eval(call, {"files": files, "sys": SimpleNamespace(argv=["", str(path)])})
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING.format(call=call), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holding\n"
        left = names(tmp_path)
        with pytest.raises(ConfigError, match=r"^(?!.*overwrite=true).*result "), enter:
            pass
        assert names(tmp_path) == left
        process.kill()
    with atomic_folder(path, kind="a thing"):  # the system has freed the lock
        pass


def test_one_process_cannot_hold_a_path_twice(tmp_path: Path) -> None:
    with (
        claimed(tmp_path / "new" / "path"),
        pytest.raises(ConfigError, match=r"^(?!.*overwrite=true).*path "),
        claimed(tmp_path / "new" / "path"),
    ):
        pass
    assert names(tmp_path) == [], "folders without content go too"


def test_a_full_disk_that_another_library_met_is_named(tmp_path: Path, full_disk: Any) -> None:
    full = pytest.raises(OSError, match=r"(?i)space|large")
    with full_disk(5000), full as caught, atomic_folder(tmp_path / "bundle", kind="a thing") as folder:
        save_file({"a": torch.zeros(9000)}, folder / "weights.safetensors")
    assert caught.value.filename == str(tmp_path / "bundle")
    assert names(tmp_path) == []


def test_new_means_absent_or_empty(tmp_path: Path) -> None:
    require_new(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    require_new(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file .*overwrite=true"):
        require_new(tmp_path / "file")
    with pytest.raises(ConfigError):
        require_new(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc/x",
        "a\\b",
        ".hidden",
        "a\0",
        "a\nb",
        "x" * 201,
        "\ud800",
        5,
        None,
        [1],
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: object) -> None:
    with pytest.raises(ConfigError, match=r"^a member .* 200 "):
        require_name(name, "a member")


@pytest.mark.parametrize("name", ["U50", "dev_seen", "größer 1", "a.b-c", "=1", "名"])
def test_plain_names_are_names(name: str) -> None:
    assert require_name(name, "a member") == name
