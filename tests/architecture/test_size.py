import ast
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
SIZE = runpy.run_path(str(ROOT / "scripts" / "size.py"))
FUNCTION_LIMIT = 60


def test_no_file_is_longer_than_a_sitting() -> None:
    long = {path: count for path, count in SIZE["files"]().items() if count > SIZE["FILE_LIMIT"]}
    assert not long, f"more than {SIZE['FILE_LIMIT']} lines: {long}"


def test_every_room_stays_within_its_budget() -> None:
    rooms = SIZE["by_folder"](SIZE["files"]())
    over = {room: count for room, count in rooms.items() if count > SIZE["BUDGET"].get(room, 0)}
    assert not over, f"more lines than scripts/size.py allows: {over}"
    assert sum(SIZE["BUDGET"].values()) == SIZE["TOTAL_ALARM"]


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > FUNCTION_LIMIT
    ]
    assert not long, f"more than {FUNCTION_LIMIT} lines: {long}"
