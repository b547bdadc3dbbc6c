"""Which cluster a command speaks to, and how what goes wrong is said."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from controller.cli.cluster.session import CONFIGURATION_HINT, STRICT, explain, settings
from controller.cli.main import main
from controller.errors import ApiError, ApiUnavailable, NoConfiguration, PodslotsError


@pytest.mark.parametrize(
    ("option", "environ", "local", "chosen"),
    [
        ("/o", {"KUBECONFIG": "/e"}, "/l", "/o"),
        (None, {"KUBECONFIG": "/e"}, "/l", "/e"),
        (None, {}, "/l", "/l"),
        (None, {"KUBECONFIG": ""}, "/l", "/l"),
        (None, {}, None, None),
    ],
)
def test_the_option_wins_over_the_environment_and_that_over_a_cluster_in_this_folder(
    option: str | None, environ: dict[str, str], local: str | None, chosen: str | None
) -> None:
    assert settings(environ, kubeconfig=option, context=None, local_kubeconfig=local).kubeconfig == chosen


SERVER = {"PODSLOTS_SERVER": "http://127.0.0.1:1", "PODSLOTS_TOKEN": "t", "KUBECONFIG": "/e"}


def test_a_cluster_that_a_person_names_wins_over_the_server_of_the_environment() -> None:
    """Else a command goes to another cluster than its line says."""
    named = settings(SERVER, kubeconfig="/o", context=None, local_kubeconfig=None)
    assert (named.server, named.token, named.kubeconfig) == (None, None, "/o")
    in_context = settings(SERVER, kubeconfig=None, context="prod", local_kubeconfig=None)
    assert (in_context.server, in_context.token, in_context.context) == (None, None, "prod")
    unnamed = settings(SERVER, kubeconfig=None, context=None, local_kubeconfig="/l")
    assert (unnamed.server, unnamed.token) == ("http://127.0.0.1:1", "t")


def test_a_context_can_be_named() -> None:
    assert settings({}, kubeconfig="/k", context="prod", local_kubeconfig=None).context == "prod"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ApiError(422, "Invalid", "spec.pool: required"), "spec.pool: required"),
        (ApiError(500, "InternalError", ""), "500 InternalError: "),
        (ApiUnavailable("GET /x: refused"), "the Kubernetes API can't be reached: GET /x: refused"),
        (ApiError(422, "Invalid", f'{{"a": 1}}: {STRICT}unknown field "a"'), 'unknown field "a"'),
        (NoConfiguration("nothing"), f"nothing. {CONFIGURATION_HINT}"),
        (PodslotsError("something else"), "something else"),
    ],
)
def test_errors_are_said_in_the_servers_words(error: PodslotsError, text: str) -> None:
    assert explain(error) == text


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("wait", "net", "--for", "Succeeded"), 4),
        (("logs", "net"), 4),
        (("logs", "-f", "net"), 4),
        (("get", "tasks"), 1),
        (("approve", "net", "--yes"), 1),
    ],
)
def test_without_a_cluster_a_task_was_not_seen_and_did_not_fail(
    tmp_path: Path, command: tuple[str, ...], code: int
) -> None:
    """Neither without a kubeconfig, nor if its server does not answer."""
    nobody = {"PODSLOTS_SERVER": "http://127.0.0.1:1", "PODSLOTS_TOKEN": "t", "KUBECONFIG": None}
    for environ in ({"KUBECONFIG": str(tmp_path / "none")}, nobody):
        done = CliRunner(env=environ).invoke(main, command)
        assert done.exit_code == code, done.output
        assert done.stderr.startswith("Error: ")
