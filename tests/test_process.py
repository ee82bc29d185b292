"""How the command line's process uses its machine, and what a user has set."""

import json
import subprocess
import sys

import pytest

MEASURE = """
import json, resource, sys, threading
from radtag import process
told = process.keep_memory() if sys.argv[1] == "keep" else None
import numpy as np

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def ask():
    np.ones(2**27, np.uint8)
    before = faults()
    for _ in range(20):
        np.ones(2**27, np.uint8)
    print(json.dumps([told, faults() - before]))

if sys.argv[2] == "thread":
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
else:
    ask()
"""


def measured(what, environment, where="main"):
    base = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", MEASURE, what, where]
    done = subprocess.run(command, env=base | environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_freed_memory_is_used_again(where):
    told, kept = measured("keep", {}, where)
    if not told:
        pytest.skip("this C library has no mallopt")
    _, given_back = measured("leave", {}, where)
    assert kept < given_back / 4


@pytest.mark.parametrize("variable", ["GLIBC_TUNABLES", "MALLOC_ARENA_MAX"])
def test_what_the_user_has_set_stays(variable):
    value = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2", "MALLOC_ARENA_MAX": "2"}[variable]
    assert measured("keep", {variable: value})[0] is False
