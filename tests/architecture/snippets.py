"""Runs the snippets of the documentation in children of one process that has imported the slow libraries.

A process per command imports torch each time, which takes longer than most commands.
"""

import multiprocessing
import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

PRELOAD = ["diptych.recipe", "diptych.train", "diptych.predict", "diptych.study", "sklearn.linear_model"]


def run(snippet: Path, folder: Path, log: Path) -> int:
    """Run a Python file, or the commands of a shell file, in `folder`; returns the exit status of the first
    that fails, else 0. `log` gets what they print."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    lines = [None] if snippet.suffix == ".py" else snippet.read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line is None or line.startswith("diptych "):
            words = None if line is None else shlex.split(line)[1:]
            child = context.Process(target=_child, args=(snippet, words, folder, log))
            child.start()
            child.join()
            status = child.exitcode or 0
        else:
            with log.open("ab") as file:
                status = subprocess.run(["bash", "-c", line], cwd=folder, stdout=file, stderr=file).returncode
        if status:
            return status
    return 0


def _child(snippet: Path, words: list[str] | None, folder: Path, log: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    sys.path.insert(0, str(snippet.parent))
    if words is None:
        sys.argv = [str(snippet)]
        runpy.run_path(str(snippet), run_name="__main__")
        return
    from diptych.cli import main

    sys.argv = ["diptych", *words]
    sys.exit(main(words))
