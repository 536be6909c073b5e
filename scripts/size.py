"""Lines of src/diptych per folder against the budget of docs/design.md, and how the change moved them."""

import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "src/diptych"
BUDGET = {
    "(top)": 3600, "calibrate": 1650, "check": 680, "cli": 3650, "conf": 40, "convert": 5000, "data": 2600,
    "datasets": 11000, "detect": 1900, "ensemble": 1350, "evaluate": 1300, "explain": 1650, "features": 3100,
    "memory": 450, "metrics": 1750, "models": 2200, "nn": 2300,
    "predict": 2000, "recipe": 1400, "report": 1950, "scale": 280,
    "serve": 1250, "study": 1950, "tasks": 3200, "text": 800, "train": 2300, "types": 650, "world": 1300,
}  # fmt: skip
TOTAL_ALARM = 61_300  # the sum of the budgets; a test watches both
FILE_LIMIT = 400


def files() -> dict[str, int]:
    """Lines of every Python file of the package."""
    paths = sorted((ROOT / PACKAGE).rglob("*.py"))
    return {p.relative_to(ROOT).as_posix(): len(p.read_text(encoding="utf-8").splitlines()) for p in paths}


def files_before() -> dict[str, int]:
    """The same at the last commit; empty where git cannot say."""
    command = ["git", "grep", "--count", "", "HEAD", "--", f"{PACKAGE}/*.py"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {path: int(lines) for _, path, lines in (line.split(":") for line in found.splitlines())}


def by_folder(lines: dict[str, int]) -> Counter[str]:
    """Sums per first folder below the package; `(top)` for its own modules."""
    sums: Counter[str] = Counter()
    for path, count in lines.items():
        parts = path.removeprefix(f"{PACKAGE}/").split("/")
        sums[parts[0] if len(parts) > 1 else "(top)"] += count
    return sums


def main() -> None:
    now, before = by_folder(files()), by_folder(files_before())
    print(f"{'folder':<12}{'lines':>8}{'change':>8}{'budget':>8}")
    for folder in sorted(now | before):
        change, budget = now[folder] - before[folder], BUDGET.get(folder, 0)
        mark = "  over" if now[folder] > budget else ""
        print(f"{folder:<12}{now[folder]:>8}{change:>+8}{budget:>8}{mark}")
    print(f"{'total':<12}{now.total():>8}{now.total() - before.total():>+8}{TOTAL_ALARM:>8}")
    for path, count in files().items():
        if count > FILE_LIMIT:
            print(f"{path} has {count} lines; the limit is {FILE_LIMIT}.")


if __name__ == "__main__":
    main()
