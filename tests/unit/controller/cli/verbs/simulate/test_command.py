"""The command line: what it prints and draws, and how it says what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from controller.cli.main import main
from controller.cli.verbs.simulate.trace import read
from tests.support.repository import ROOT

POOL = """
apiVersion: podslots.dev/v1alpha1
kind: SlotPool
metadata: {name: terraform}
spec:
  autoscaling: {maxReplicas: 5}
  template: {spec: {containers: [{name: worker, image: terraform}]}}
"""
TRACE = """arrival,type,plan_seconds,approval_seconds,apply_seconds
0,plan,60,,
10,plan_and_apply,60,3600,60
20,plan,60,,
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pool.yaml").write_text(POOL)
    (tmp_path / "trace.csv").write_text(TRACE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *arguments], catch_exceptions=False)


def test_a_trace_gives_a_line_for_each_strategy(folder: Path) -> None:
    found = call("--pool", "pool.yaml", "--trace", "trace.csv", "--hpa-target", "50", "--fixed", "3", "--fixed", "4")
    assert found.exit_code == 0, found.output
    names = [line.split("   ")[0].strip() for line in found.output.splitlines()]
    assert names == ["STRATEGY", "podslots", "HPA at 50 %", "a Pod per task", "fixed, 3 Pods", "fixed, 4 Pods"]
    assert folder.is_dir()


def test_json_and_yaml_have_the_same_figures(folder: Path) -> None:
    arguments = ("--pool", "pool.yaml", "--trace", "trace.csv", "--pod-start-seconds", "30", "-o")
    document = json.loads(call(*arguments, "json").output)
    assert document == yaml.safe_load(call(*arguments, "yaml").output)
    assert document["trace"] == {"tasks": 3, "start": "2026-01-05T00:00:00.000000Z", "seconds": 20.0}
    ours = document["strategies"][0]
    assert ours["tasks"] == {
        "arrived": 3,
        "succeeded": 3,
        "cancelled": 0,
        "expired": 0,
        "lost": 0,
        "unfinished": 0,
    }
    assert ours["waitSeconds"]["max"] == 30
    assert ours["reservedSlotHours"] == 1
    assert folder.is_dir()


@pytest.mark.parametrize(("name", "begins"), [("course.svg", b"<?xml"), ("course.png", b"\x89PNG")])
def test_the_same_simulation_draws_the_same_picture(folder: Path, name: str, begins: bytes) -> None:
    arguments = ("--pool", "pool.yaml", "--trace", "trace.csv", "--plot", name)
    pictures = []
    for _ in range(2):
        found = call(*arguments)
        assert found.exit_code == 0, found.output
        pictures.append((folder / name).read_bytes())
    assert pictures[0].startswith(begins)
    assert pictures[0] == pictures[1]
    if name.endswith(".svg"):
        assert all(word in pictures[0] for word in (b"podslots", b"reserved", b"HPA at 70 %"))


def test_a_day_can_be_saved_and_tried_again(folder: Path) -> None:
    made = call("--pool", "pool.yaml", "--day", "--tasks", "40", "--seed", "7", "--save-trace", "day.csv", "-o", "json")
    again = call("--pool", "pool.yaml", "--trace", "day.csv", "--seed", "7", "-o", "json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.output) == json.loads(again.output)
    trace = read((folder / "day.csv").read_text(), "day.csv")
    assert len(trace.arrivals) == 40
    assert trace.seconds < 86400
    other = call("--pool", "pool.yaml", "--day", "--tasks", "40", "--seed", "8", "-o", "json")
    assert json.loads(other.output) != json.loads(made.output)


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("--day",), 2, "Missing option '--pool'"),
        (("--pool", "pool.yaml"), 2, "give one of --trace, --day and --prometheus"),
        (("--pool", "pool.yaml", "--day", "--trace", "trace.csv"), 2, "give one of --trace, --day and --prometheus"),
        (("--pool", "pool.yaml", "--trace", "trace.csv", "--tasks", "5"), 2, "--tasks is for --day"),
        (("--pool", "pool.yaml", "--trace", "trace.csv", "--plan-seconds", "5"), 2, "a trace says itself"),
        (("--pool", "pool.yaml", "--day", "--query", "x"), 2, "are for --prometheus"),
        (("--pool", "pool.yaml", "--prometheus", "http://127.0.0.1:1"), 2, "--prometheus needs --from"),
        (("--pool", "pool.yaml", "--prometheus", "u", "--from", "2026-03-01T08:00"), 2, "has no time zone"),
        (("--pool", "pool.yaml", "--prometheus", "u", "--from", "yesterday"), 2, "is no time as 2026-03-01T08:00:00Z"),
        (("--pool", "pool.yaml", "--prometheus", "u", "--to", "0001-01-01T00:00:00+14:00"), 2, "is no time as 2026"),
        (("--pool", "pool.yaml", "--day", "--plan-seconds", "nan"), 2, "nan is no number"),
        (("--pool", "pool.yaml", "--day", "--pod-start-seconds", "nan"), 2, "nan is no number"),
        (("--pool", "pool.yaml", "--day", "--apply-seconds", "1e300"), 2, "is not in the range"),
        (("--pool", "pool.yaml", "--day", "--hpa-target", "inf"), 2, "inf is no number"),
        (("--pool", "none.yaml", "--day"), 1, "none.yaml: there is no such file"),
        (("--pool", "trace.csv", "--day"), 1, "trace.csv, document 1: an object with apiVersion"),
        (("--pool", "two.yaml", "--day"), 1, "two.yaml: 2 SlotPools in it; a simulation is of one"),
        (("--pool", "bad.yaml", "--day"), 1, "spec.autoscaling.maxReplicas: is required"),
        (("--pool", "fixed.yaml", "--day"), 1, "nobody decides on the pool's size"),
        (("--pool", "pool.yaml", "--trace", "bad.csv"), 1, "bad.csv, line 2: plan_seconds: 'x' is no number"),
        (("--pool", "pool.yaml", "--trace", "lint.csv"), 1, "no slot of the pool accepts tasks of type 'lint'"),
        (("--pool", "pool.yaml", "--day", "--plot", "x.pdf"), 1, "a plot is a file that ends in .svg or .png"),
        (("--pool", "pool.yaml", "--day", "--plot", "none/x.svg"), 1, "there is no such folder"),
        (("--pool", "pool.yaml", "--day", "--save-trace", "none/x.csv"), 1, "none/x.csv: No such file"),
        (
            ("--pool", "pool.yaml", "--prometheus", "http://127.0.0.1:1", "--from", "2026-03-01T08:00:00Z"),
            1,
            "Error: http://127.0.0.1:1: can't connect to 127.0.0.1:1: Connection refused",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(folder: Path, arguments: tuple[str, ...], code: int, problem: str) -> None:
    (folder / "two.yaml").write_text(f"{POOL}---{POOL}")
    (folder / "bad.yaml").write_text(POOL.replace("maxReplicas: 5", ""))
    (folder / "fixed.yaml").write_text(POOL.replace("autoscaling: {maxReplicas: 5}", "replicas: 5"))
    (folder / "bad.csv").write_text(TRACE.replace("60", "x", 1))
    (folder / "lint.csv").write_text(TRACE.replace("20,plan,", "20,lint,"))
    found = call(*arguments)
    assert found.exit_code == code, found.output
    assert problem in found.output
    assert "Traceback" not in found.output


def test_without_the_plotting_library_only_the_plot_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = call("--pool", "pool.yaml", "--trace", "trace.csv", "--plot", "x.svg")
    assert (found.exit_code, folder / "x.svg" in folder.iterdir()) == (1, False)
    assert "pip install 'podslots[simulate]'" in found.output
    assert call("--pool", "pool.yaml", "--trace", "trace.csv").exit_code == 0


def test_the_table_in_the_document_is_what_comes_out() -> None:
    pool, trace = ROOT / "manifests" / "examples" / "pool.yaml", ROOT / "docs" / "simulator" / "arrivals.csv"
    found = call("--pool", str(pool), "--trace", str(trace))
    assert found.exit_code == 0, found.output
    assert f".csv\n{found.output}```\n" in (ROOT / "docs" / "simulator.md").read_text(), "make simulator"


def test_other_commands_start_without_it() -> None:
    code = (
        "import sys, controller.cli.main; "
        "print([name for name in ('matplotlib', 'numpy', 'controller.decide.scaling.size', "
        "'controller.cli.verbs.simulate.engine') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
