"""Garbage collection does not hold the controller's loop: however many objects are kept, lists cause no full one."""

import subprocess
import sys

PROGRAM = """
import gc, orjson
from controller.process import spare_the_collector
spare_the_collector()
page = orjson.dumps([{"metadata": {"name": str(number)}, "spec": {"a": [{}, {}, {}]}} for number in range(500)])
kept = []
before = gc.get_stats()[2]["collections"]
for _ in range(40):
    kept += orjson.loads(page)
    gc.freeze()
first, before = gc.get_stats()[2]["collections"] - before, gc.get_stats()[2]["collections"]
for _ in range(400):
    orjson.loads(page)
print(first, gc.get_stats()[2]["collections"] - before, len(kept))
"""


def test_no_list_is_a_cause_to_look_at_all_objects() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["0", "0", "20000"]
