"""The chain of the audit log: whatever is done to a line, `verify` names it."""

import json

import pytest

from diptych.cli import main
from diptych.errors import ConfigError, FormatError
from diptych.serve import AuditLog, verify


@pytest.fixture
def written(tmp_path):
    """A log of two days, by two processes."""
    folder = tmp_path / "audit"
    for start in (0, 2):
        log = AuditLog(folder, sync=0.0)
        for number in range(start, start + 2):
            log.append({"request_id": f"r{number}", "model_sha256": "x", "note": "\ud800 \u2028"})
        log.close()
        [today] = folder.glob("*.jsonl") if not start else [max(folder.glob("2*.jsonl"))]
        if not start:
            today.rename(folder / "2020-01-01.jsonl")
    return folder


def files(folder):
    return sorted(folder.glob("*.jsonl"))


def test_a_log_of_several_days_and_processes_holds(written, capsys):
    found = verify(written)
    assert (found.lines, found.files, found.whole, found.broken) == (4, 2, True, None)
    assert json.loads(files(written)[1].read_text().splitlines()[-1])["sha256"] == found.last
    assert main(["audit-log", "verify", str(written)]) == 0
    assert found.last in capsys.readouterr().out


@pytest.mark.parametrize("number", [0, 1])
def test_a_changed_line_is_named(written, number, capsys):
    path = files(written)[1]
    lines = path.read_text().splitlines(keepends=True)
    lines[number] = lines[number].replace('"r', '"R')
    path.write_text("".join(lines))
    broken = verify(written).broken
    assert broken[:2] == (path, number + 1)
    assert main(["audit-log", "verify", str(written)]) == 1
    assert f"{path}:{number + 1}" in capsys.readouterr().out


def test_a_missing_line_is_named(written):
    path = files(written)[0]
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    broken = verify(written).broken
    assert broken[:2] == (files(written)[1], 1)


def test_a_line_that_was_made_anew_breaks_the_next(written):
    from hashlib import sha256

    path = files(written)[0]
    first, second = path.read_text().splitlines()
    record = {name: value for name, value in json.loads(first).items() if name != "sha256"} | {
        "request_id": "x"
    }
    body = json.dumps(record)
    checksum = sha256(body.encode()).hexdigest()
    path.write_text(f'{body[:-1]}, "sha256": "{checksum}"}}\n{second}\n')
    assert verify(written).broken[:2] == (path, 2)


def test_removed_old_files_are_told(written):
    files(written)[0].unlink()
    found = verify(written)
    assert (found.lines, found.whole, found.broken) == (2, False, None)


def test_half_a_line_of_a_kill_is_removed(written):
    path = files(written)[1]
    with path.open("ab") as file:
        file.write(b'{"request_id": "r')
    assert verify(written).broken[:2] == (path, 3)
    AuditLog(written).close()
    assert verify(written).lines == 4


def test_a_damaged_end_is_not_continued(written):
    path = files(written)[1]
    path.write_text(path.read_text() + "no line\n")
    with pytest.raises(FormatError, match=path.name):
        AuditLog(written)


def test_two_processes_cannot_write_one_log(written):
    log = AuditLog(written)
    with pytest.raises(ConfigError):
        AuditLog(written)
    log.close()


def test_a_full_disk_leaves_whole_lines(written, full_disk):
    log = AuditLog(written, sync=0.0)
    with full_disk(files(written)[1].stat().st_size + 10), pytest.raises(OSError, match="large"):
        log.append({"request_id": "x" * 100})
    log.append({"request_id": "after"})
    log.close()
    assert (verify(written).lines, verify(written).broken) == (5, None)


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("")]
)
def test_what_is_no_log_is_refused(tmp_path, make):
    make(tmp_path / "log")
    with pytest.raises(FormatError, match="log"):
        verify(tmp_path / "log")
