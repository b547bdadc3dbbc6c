"""Names, kinds and lengths of time are checked before anything is asked for."""

import re

import click
import pytest
import yaml
from click.testing import CliRunner

from controller.cli.arguments import elsewhere, kinds
from controller.cli.arguments.kinds import Kind
from controller.cli.arguments.types import Duration
from controller.cli.cluster.called import command
from controller.cli.main import main
from controller.cli.verbs.local import local
from tests.support.repository import ROOT

ON_ONE = ("logs", "approve", "retry", "cancel", "drain", "undrain", "forget", "rotate", "wait")


@pytest.mark.parametrize("name", ["", "a/b", "../x", "UPPER", "a" * 254])
@pytest.mark.parametrize("verb", ON_ONE)
def test_what_is_no_name_is_refused(verb: str, name: str) -> None:
    """An empty one, as of a shell variable that is not set, would ask for all objects of the kind."""
    result = CliRunner().invoke(main, [verb, "--", name])
    assert result.exit_code == 2
    assert "is no name" in result.stderr


@pytest.mark.parametrize("name", ["", "a/b", "a.b", "é"])
@pytest.mark.parametrize("arguments", [["-n", "NAME", "get", "tasks"], ["get", "tasks", "-n", "NAME"]])
def test_what_is_no_namespace_is_refused_wherever_it_stands(name: str, arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [name if word == "NAME" else word for word in arguments])
    assert result.exit_code == 2
    assert "is no namespace" in result.stderr


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["apply", "-f", "x.yaml"], "Use: podslots submit -f FILE; a plan is applied by podslots approve TASK"),
        (["delete", "task", "x"], "Use: kubectl delete slottask NAME"),
        (["local", "stop"], "Use: podslots local down"),
        (["aprove", "x"], "Did you mean 'approve'?"),
        (["local", "stat"], "Did you mean 'status'?"),
        (["submit", "a.yaml", "b c.yaml"], f"each file stands after a -f: {command()} submit -f a.yaml -f 'b c.yaml'"),
        (["submit"], f"each file stands after a -f: {command()} submit -f FILE"),
        (["submit", "-n", "team", "d", "-R", "-o", "name"], f"{command()} submit -f d -R -o name -n team"),
        (["describe", "network"], "Is it a name? Then its kind comes first: task network"),
    ],
)
def test_a_wrong_command_line_is_answered_with_the_right_one(words: list[str], right: str) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert right in result.stderr


def test_what_stands_for_other_programs_verbs_is_no_verb_of_ours() -> None:
    for group, others in ((main, elsewhere.VERBS), (local, elsewhere.LOCAL)):
        assert not set(others) & set(group.list_commands(click.Context(group)))


def test_a_kind_goes_by_the_names_that_its_definition_has() -> None:
    for kind, name in ((kinds.POOLS, "slotpools"), (kinds.TASKS, "slottasks")):
        definition = yaml.safe_load((ROOT / f"manifests/base/crds/{name}.yaml").read_text())["spec"]["names"]
        words = [definition["plural"], definition["singular"], *definition["shortNames"], definition["kind"]]
        assert [kinds.find(word) for word in [*words, f"{definition['plural']}.podslots.dev"]] == [kind] * 5
    assert kinds.find("po") is kinds.POD_KIND
    assert kinds.find("nodes") is None


def test_an_unknown_kind_is_answered_with_those_there_are() -> None:
    result = CliRunner().invoke(main, ["get", "nodes"])
    assert (result.exit_code, "tasks (task, slottasks, slottask, slt)" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("word", "near"),
    [("taks", "tasks"), ("pol", "pool"), ("slotask", "slottask"), ("podz", "pod"), ("tasks,slos", "slots")],
)
def test_a_misspelt_kind_is_answered_with_the_nearest(word: str, near: str) -> None:
    result = CliRunner().invoke(main, ["get", word])
    assert (result.exit_code, f"; did you mean {near!r}?" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["rollout", "staus"], "'status'"),
        (["local", "upp"], "'up'"),
        (["get", "tasks", "--wach"], "'--watch'"),
        (["logs", "--atempt", "3", "net"], "'--attempt'"),
        (["wait", "net", "--for", "Suceeded"], "'Succeeded'"),
    ],
)
def test_misspelt_verbs_of_a_group_options_and_phases_are_too(arguments: list[str], near: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "id you mean" in result.stderr
    assert near in result.stderr


@pytest.mark.parametrize(
    ("words", "selected"),
    [
        ("tasks", [(kinds.TASKS, ())]),
        ("tasks a b a", [(kinds.TASKS, ("a", "b"))]),
        ("task/a", [(kinds.TASKS, ("a",))]),
        ("task/a pool/p slottask.podslots.dev/b", [(kinds.TASKS, ("a", "b")), (kinds.POOLS, ("p",))]),
        ("tasks,slp,task", [(kinds.TASKS, ()), (kinds.POOLS, ())]),
        ("tasks,pools a", [(kinds.TASKS, ("a",)), (kinds.POOLS, ("a",))]),
        ("all", [(kinds.POOLS, ()), (kinds.POD_KIND, ()), (kinds.TASKS, ())]),
    ],
)
def test_what_is_looked_at_is_named_in_the_forms_of_kubectl(
    words: str, selected: list[tuple[Kind, tuple[str, ...]]]
) -> None:
    assert [(each.kind, each.names) for each in kinds.select(tuple(words.split()))] == selected


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("", "name what to look at"),
        ("tasks task/a", "names a kind"),
        ("task/a b", "'b' is not KIND/NAME"),
        ("task/", "'task/' is not KIND/NAME"),
        ("task/a/b", "'task/a/b' is not KIND/NAME"),
        ("tasks,pools/a", "one kind before the name"),
        ("tasks,", "there is no kind ''"),
    ],
)
def test_what_selects_nothing_is_refused(words: str, problem: str) -> None:
    with pytest.raises(kinds.NoSelection, match=re.escape(problem)):
        kinds.select(tuple(words.split()))


@pytest.mark.parametrize("arguments", [["get", "task/A"], ["get", "tasks", ""], ["describe", "pod", "x/y", "z"]])
def test_names_within_a_selection_are_checked(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_every_verb_says_what_it_is_for_in_a_line() -> None:
    """Cut to the width of a terminal, a sentence may say the opposite."""
    for group in ([], ["rollout"], ["local"]):
        text = CliRunner().invoke(main, [*group, "--help"], terminal_width=80).output
        assert "..." not in text.partition("\n")[2], text


def test_an_unknown_verb_is_answered_with_the_nearest() -> None:
    assert "No such command 'aprove'. Did you mean 'approve'?" in CliRunner().invoke(main, ["aprove", "net"]).stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("0.5", 0.5), ("60s", 60), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25)]
)
def test_a_length_of_time_is_written_as_for_kubectl(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "5x", "m", "-1", "1h 5m", "nan"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no length of time"):
        Duration().convert(text, None, None)
