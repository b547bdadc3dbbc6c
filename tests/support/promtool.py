"""Prometheus' own programs, as Debian has them (packages `prometheus` and `prometheus-alertmanager`)."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.repository import ROOT

MONITORING = ROOT / "manifests" / "monitoring"


def program(name: str) -> str:
    """Where it is. A test that needs it fails without it: what it would show is not shown."""
    found = shutil.which(name)
    assert found, f"{name} is not installed: apt-get install prometheus prometheus-alertmanager"
    return found


def promtool(*arguments: str | Path, given: bytes = b"") -> tuple[int, str]:
    """The exit status, and all that it said."""
    command = [program("promtool"), *map(str, arguments)]
    ran = subprocess.run(
        command, input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False
    )
    return ran.returncode, ran.stdout.decode()


def found_by_files(folder: Path, token: Path) -> list[dict[str, Any]]:
    """The jobs that are shipped, all of each but how Pods are found: by `JOB.json` in a folder, with Pods' meta labels.

    Debian's Prometheus is built without the discovery of Pods. What is done with its labels is tried as it stands.
    """
    shipped = yaml.safe_load((MONITORING / "scrape" / "podslots.scrape.yaml").read_text())["scrape_configs"]
    jobs: list[dict[str, Any]] = []
    for job in shipped:
        assert [entry["role"] for entry in job.pop("kubernetes_sd_configs")] == ["pod"]
        found = {"file_sd_configs": [{"files": [str(folder / f"{job['job_name']}.json")]}]}
        shown = {"authorization": {"credentials_file": str(token)}} if "authorization" in job else {}
        jobs.append({**job, **found, **shown})
    return jobs
