"""A full disk ends a study as it ends every verb; the same call goes on when there is room."""

import pytest

from diptych.study import Call, run_study


@pytest.mark.slow
@pytest.mark.parametrize("size", [200, 20_000], ids=["a record", "a checkpoint"])
def test_a_full_disk_is_one_line(size, call, write, tree, out, full_disk, capsys):
    path = write(tree)
    if size < 1000:
        assert call("run", path, "members=U1", "jobs=1") == 0
        tree["families"]["U"]["members"]["U1"]["seed"] = 5
        path = write(tree)
        capsys.readouterr()
    with full_disk(size):
        assert call("run", path, "members=U1") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"diptych: error: no space left while writing {out}")
    assert not list(out.glob("**/*.part"))
    assert call("run", path, "members=U1") == 0


@pytest.mark.slow
def test_a_process_of_its_own_tells_of_a_full_disk(write, tree, memes, out, full_disk):
    from diptych.study import Options

    given = Call(root=memes, members=["U1"], limit=20)
    with full_disk(20_000), pytest.raises(OSError, match="File too large"):
        run_study(str(write(tree)), given, out=out, options=Options(jobs=2))
