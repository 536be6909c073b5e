"""Write the percent scripts of docs/notebooks as Jupyter notebooks, for Jupyter, VS Code and Colab.

python scripts/notebooks.py            write build/notebooks
python scripts/notebooks.py FOLDER     write FOLDER
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "docs" / "notebooks"
CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)


def notebook(text: str) -> dict[str, Any]:
    """The notebook (nbformat 4.5) of a percent script; cells have no outputs.

    Raises:
        ValueError: there is text before the first cell.
    """
    before, *parts = CELL.split(text)
    if before.strip():
        raise ValueError(f"text before the first `# %%`: {before.strip()[:60]!r}")
    cells = []
    for number, (mark, body) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        kind = "markdown" if "[markdown]" in mark else "code"
        lines = body.strip("\n").split("\n")
        if kind == "markdown":
            lines = [re.sub(r"^# ?", "", line) for line in lines]
        # by number: random names would make another file of the same script
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        cell["source"] = "\n".join(lines).strip("\n").splitlines(keepends=True)
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    language = {"name": "python"}
    about = {"kernelspec": kernel, "language_info": language}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def main(argv: list[str]) -> int:
    out = Path(argv[0]) if argv else ROOT / "build" / "notebooks"
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(SCRIPTS.glob("*.py")):
        target = out / f"{path.stem}.ipynb"
        content = notebook(path.read_text(encoding="utf-8"))
        target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"wrote {target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
