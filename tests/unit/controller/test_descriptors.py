"""The controller uses all the file descriptors that it may have, and keeps some from agents' streams."""

import resource
import subprocess
import sys

import orjson

PROGRAM = """
import resource, sys
from controller.logs import configure_logging
configure_logging(sys.stderr)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, int(sys.argv[1])))
from controller.process import streams_at_most
print(streams_at_most(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def run(hard: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROGRAM, str(hard)], check=True, capture_output=True, text=True)


def streams_of(hard: int) -> list[int]:
    return [int(word) for word in run(hard).stdout.split()]


def test_the_soft_limit_becomes_the_hard_one() -> None:
    assert streams_of(1024) == [624, 1024, 1024]


def test_streams_never_take_what_the_lease_needs() -> None:
    hard = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert streams_of(hard)[0] == hard - 400
    assert streams_of(300)[0] == 1


def test_too_few_are_said_once_with_the_number() -> None:
    lines = run(1024).stderr.splitlines()
    assert len(lines) == 1
    said = orjson.loads(lines[0])
    assert (said["level"], said["limit"], said["streams"]) == ("warning", 1024, 624)
