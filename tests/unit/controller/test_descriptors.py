"""The controller uses all the file descriptors that it may have, and keeps some from agents' streams."""

import resource
import subprocess
import sys

PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, int(sys.argv[1])))
from controller.process import streams_at_most
print(streams_at_most(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def streams_of(hard: int) -> list[int]:
    run = subprocess.run([sys.executable, "-c", PROGRAM, str(hard)], check=True, capture_output=True, text=True)
    return [int(word) for word in run.stdout.split()]


def test_the_soft_limit_becomes_the_hard_one() -> None:
    assert streams_of(1024) == [624, 1024, 1024]


def test_streams_never_take_what_the_lease_needs() -> None:
    hard = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert streams_of(hard)[0] == hard - 400
    assert streams_of(300)[0] == 1
