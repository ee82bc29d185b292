"""Gives the README's commands, in order and in an empty folder, and writes their real output under each: `make readme`.

Takes some minutes. A test gives the same commands at a small size, and does not compare the numbers.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"```console\n\$ (radtag [^\n]*)\n.*?```", re.DOTALL)


def main() -> None:
    """Rewrite the README's console blocks."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "RADTAG_CACHE": str(Path(folder) / "cache"), "PATH": path()}
        text = BLOCK.sub(lambda block: run(block[1], folder, environment), README.read_text(encoding="utf-8"))
    README.write_text(text, encoding="utf-8")


def run(command: str, folder: str, environment: dict[str, str]) -> str:
    """A command with its output, as a block."""
    print(f"$ {command}", file=sys.stderr)
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "\n".join(["```console", f"$ {command}", *lines, "```"])


def path() -> str:
    """Where this interpreter's radtag is found first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


if __name__ == "__main__":
    main()
