"""Names are checked before anything is asked for."""

import pytest
from click.testing import CliRunner

from controller.cli.main import main

ON_ONE = ("logs", "approve", "retry", "cancel", "drain", "undrain", "forget", "rotate")


@pytest.mark.parametrize("name", ["", "a/b", "../x", "UPPER", "a" * 254])
@pytest.mark.parametrize("verb", ON_ONE)
def test_what_is_no_name_is_refused(verb: str, name: str) -> None:
    """An empty one, as of a shell variable that is not set, would ask for all objects of the kind."""
    result = CliRunner().invoke(main, [verb, "--", name])
    assert result.exit_code == 2
    assert "is no name" in result.stderr


@pytest.mark.parametrize("name", ["", "a/b", "a.b", "é"])
def test_what_is_no_namespace_is_refused(name: str) -> None:
    result = CliRunner().invoke(main, ["-n", name, "get", "tasks"])
    assert result.exit_code == 2
    assert "is no namespace" in result.stderr
