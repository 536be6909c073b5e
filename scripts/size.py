"""Lines of src/diptych per folder against the budget of docs/design.md, and how the change moved them."""

import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "src/diptych"
BUDGET = {
    "(top)": 4150, "audit": 2500, "calibrate": 2900, "check": 680, "cli": 6500, "conf": 40, "convert": 5550,
    "data": 3050, "datasets": 11900, "detect": 2600, "ensemble": 2050, "evaluate": 1350, "explain": 2500,
    "features": 3300, "memory": 1000, "metrics": 1850, "models": 3000, "nn": 3000,
    "predict": 2450, "recipe": 1550, "report": 2900, "scale": 500,
    "serve": 5400, "study": 2250, "tasks": 4150, "text": 1250, "train": 2400, "types": 650, "world": 1200,
}  # fmt: skip
TOTAL_ALARM = 82_620  # the sum of the budgets; a test watches both
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
