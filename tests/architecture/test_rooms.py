import runpy
from pathlib import Path

ROOMS = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "rooms.py"))


def test_the_picture_of_the_rooms_is_of_this_code() -> None:
    """After a change of layers or docstrings: python scripts/rooms.py."""
    assert ROOMS["PICTURE"].read_text(encoding="utf-8") == ROOMS["picture"]()


def test_every_folder_of_the_package_is_in_a_layer() -> None:
    package = ROOMS["ROOT"] / "src" / "diptych"
    folders = {path.parent.name for path in package.glob("*/__init__.py")} - {"conf"}
    assert folders <= {room for row in ROOMS["layers"]() for room in row}
