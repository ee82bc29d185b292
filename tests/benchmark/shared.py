"""A benchmark worked on by several processes, for test_work.py: killed in the middle, then taken up by two at once.

    python shared.py FILE.toml

One process imports torch and forks all the others, which is much faster than to start each anew.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path

from rich.console import Console

from radtag.benchmark import benchmark, read_plan, states


def work(file: str, log: str) -> None:
    with open(log, "w", encoding="utf-8") as told:
        benchmark(read_plan(file), console=Console(file=told, width=200))


def start(file: str, log: str) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=work, args=(file, log))
    process.start()
    return process


def main() -> None:
    file = sys.argv[1]
    plan = read_plan(file)
    run = plan.folder(plan.cells()[0]) / "run"
    first = start(file, f"{file}.killed")
    while first.is_alive() and not (run / "resume.pt").is_file():
        time.sleep(0.005)
    seen = [one.state for one in states(plan)]
    first.kill()
    first.join()
    after = [one.state for one in states(plan)]
    two = [start(file, f"{file}.{name}") for name in ("a", "b")]
    for one in two:
        one.join()
    told = [Path(f"{file}.{name}").read_text(encoding="utf-8") for name in ("killed", "a", "b")]
    ends = [one.exitcode for one in two]
    print(json.dumps({"seen": seen, "after": after, "ends": ends, "told": told}))


if __name__ == "__main__":
    main()
