"""What `get` says of an object that it does not show: that there is none, or that it is none of those asked for."""

from typing import Any

import pytest
from click.testing import CliRunner

from controller.cli.cluster.session import Session
from controller.cli.main import main
from controller.kube.api import NAMESPACES, PODS, SLOTTASKS
from controller.names import POOL_LABEL
from tests.support.cli_api import NAMESPACE, CliApi, task


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> CliApi:
    """Task net of pool p, Pod web of no pool, Pod worker of pool p; and Pod away and task far in another namespace."""
    made = CliApi()
    made.put(NAMESPACES, NAMESPACE, {"metadata": {"name": NAMESPACE}})
    made.put(SLOTTASKS, "net", task("Queued"))
    far = task("Queued")
    far["metadata"] |= {"name": "far", "namespace": "other"}
    made.put(SLOTTASKS, "far", far)
    pods: dict[str, dict[str, Any]] = {
        "web": {"namespace": NAMESPACE},
        "worker": {"namespace": NAMESPACE, "labels": {POOL_LABEL: "p"}},
        "away": {"namespace": "other"},
    }
    for name, metadata in pods.items():
        made.put(PODS, name, {"metadata": {"name": name, **metadata}, "status": {"phase": "Running"}})
    monkeypatch.setattr(Session, "run", lambda _self, command: command(made.connection()))
    return made


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("pod web", "Pod web is no Pod of a pool"),
        ("slot web -A", "Pod web is no Pod of a pool"),
        ("pod worker -p other", "Pod worker is not of pool other"),
        ("task net -p other", "SlotTask net is not of pool other"),
        ("task net -p other -A", "SlotTask net is not of pool other"),
        ("task nett", "no SlotTask nett in namespace team; did you mean 'net'?"),
        ("task nett -A", "no SlotTask nett in any namespace; did you mean 'net'?"),
        ("task far", "no SlotTask far in namespace team; there is one in namespace other"),
        ("task far -p p", "no SlotTask far in namespace team; there is one in namespace other"),
        ("pod away", "no Pod away in namespace team; there are: worker"),
    ],
)
@pytest.mark.usefixtures("api")
def test_it_never_says_that_what_is_there_is_not(words: str, said: str) -> None:
    done = CliRunner().invoke(main, ["get", *words.split()])
    assert (done.exit_code, done.stderr) == (1, f"Error: {said}\n")


def test_a_hint_that_cannot_be_had_replaces_no_answer(api: CliApi) -> None:
    connection = api.connection()
    api.away = True
    assert connection.absence(SLOTTASKS, "nett") == "no SlotTask nett in namespace team"
    assert connection.absence(PODS, "web", everywhere=True) == "no Pod web in any namespace"
