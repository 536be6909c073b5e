import json

from diptych.cli import main


def test_a_file_of_boxes_is_checked_like_a_store(memes, boxes, capsys) -> None:
    command = ["check", str(memes), "--features", str(boxes), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["splits"][0]["regions"] == [1, 1, 1]
    lines = boxes.read_text(encoding="utf-8").splitlines()
    wrong = json.dumps({"id": json.loads(lines[1])["id"], "boxes": [[0, 0, 900, 9]]})
    boxes.write_text("\n".join([wrong, *lines[2:]]), encoding="utf-8")
    assert main(command) == 1
    found = {one["what"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert found["pictures without features"]["count"] == 1
    assert "box 0 leaves the image" in found["features that cannot be read"]["examples"][0]
