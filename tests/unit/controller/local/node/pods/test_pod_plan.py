"""What the kubelet does next for a Pod, as tables of situations."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.local.node.pods.pod_plan import (
    MINIMUM_KILL_DELAY_SECONDS,
    Action,
    ContainerView,
    HookState,
    PodView,
    RunState,
    Stop,
    Verb,
    plan,
)
from controller.local.node.pods.pod_spec import Role

NOW = 100.0
INSTALL = ContainerView("install", Role.INIT)
AGENT = ContainerView("agent", Role.SIDECAR)
PROXY = ContainerView("proxy", Role.SIDECAR)
WORK = ContainerView("work", Role.MAIN)
MORE = ContainerView("more", Role.MAIN)


def done(container: ContainerView, code: int = 0) -> ContainerView:
    return replace(container, state=RunState.EXITED, exit_code=code)


def running(container: ContainerView, *, started: bool = True) -> ContainerView:
    return replace(container, state=RunState.RUNNING, started=started)


def stopping(container: ContainerView, stop: Stop) -> ContainerView:
    return replace(running(container), stop=stop)


def actions(*containers: ContainerView, policy: str = "Always", end_by: float | None = None) -> list[tuple[str, str]]:
    decided = plan(PodView(policy, containers, end_by), NOW)
    return [(action.verb.name, action.container) for action in decided.actions]


@pytest.mark.parametrize(
    ("containers", "started"),
    [
        ([INSTALL, AGENT, WORK, MORE], ["install"]),
        ([running(INSTALL), AGENT, WORK], []),
        ([done(INSTALL), AGENT, WORK], ["agent"]),
        ([done(INSTALL), running(AGENT, started=False), WORK], []),
        ([done(INSTALL), running(AGENT), WORK, MORE], ["work", "more"]),
        ([running(AGENT), INSTALL, WORK], ["install"]),
        ([done(AGENT, 1), running(INSTALL), WORK], ["agent"]),
        ([done(AGENT, 1), done(INSTALL), WORK], ["agent", "work"]),
        ([WORK, MORE], ["work", "more"]),
        ([done(INSTALL), done(AGENT, 1), running(WORK)], ["agent"]),
        ([done(INSTALL, 1), AGENT, WORK], ["install"]),
    ],
)
def test_containers_start_in_the_order_of_their_roles(containers: list[ContainerView], started: list[str]) -> None:
    assert actions(*containers) == [("START", name) for name in started]


def test_init_containers_do_not_run_again_once_a_main_container_ran() -> None:
    assert actions(done(INSTALL, 1), running(AGENT), running(WORK)) == []


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True), ("Always", 1, True),
        ("OnFailure", 0, False), ("OnFailure", 1, True),
        ("Never", 0, False), ("Never", 1, False),
    ],
)  # fmt: skip
def test_a_main_container_restarts_by_the_restart_policy(policy: str, code: int, again: bool) -> None:
    assert actions(done(WORK, code), running(MORE), policy=policy) == ([("START", "work")] if again else [])


def test_a_sidecar_restarts_under_every_policy() -> None:
    assert actions(done(AGENT), running(WORK), policy="Never") == [("START", "agent")]


def test_back_off_is_waited_for() -> None:
    decided = plan(PodView("Always", [replace(done(WORK, 1), start_at=NOW + 7)]), NOW)
    assert decided.actions == ()
    assert decided.ask_again_at == NOW + 7


@pytest.mark.parametrize(
    ("containers", "policy", "finished"),
    [
        ([done(WORK)], "Never", True),
        ([done(WORK, 1)], "Never", True),
        ([done(WORK)], "OnFailure", True),
        ([done(WORK, 1)], "OnFailure", False),
        ([done(WORK)], "Always", False),
        ([running(AGENT), done(WORK)], "Never", True),
        ([running(AGENT), done(WORK), running(MORE)], "Never", False),
        ([done(INSTALL, 1), WORK], "Never", True),
    ],
)
def test_a_pod_is_finished_when_nothing_but_sidecars_could_run(
    containers: list[ContainerView], policy: str, finished: bool
) -> None:
    assert plan(PodView(policy, containers), NOW).finished is finished


def test_an_ending_pod_begins_to_stop_every_container_at_once_and_starts_none() -> None:
    assert actions(running(AGENT), running(WORK), done(MORE, 1), end_by=NOW + 30) == [
        ("BEGIN_STOP", "agent"),
        ("BEGIN_STOP", "work"),
    ]


def test_a_sidecars_pre_stop_hook_runs_at_once_but_its_sigterm_waits_for_the_main_containers() -> None:
    pending = Stop(NOW + 30, HookState.PENDING)
    assert actions(stopping(AGENT, pending), stopping(WORK, pending), end_by=NOW + 30) == [
        ("PRE_STOP", "agent"),
        ("PRE_STOP", "work"),
    ]
    hooks_done = Stop(NOW + 30, HookState.DONE)
    assert actions(stopping(AGENT, hooks_done), stopping(WORK, hooks_done), end_by=NOW + 30) == [("TERMINATE", "work")]
    assert actions(stopping(AGENT, hooks_done), done(WORK), end_by=NOW + 30) == [("TERMINATE", "agent")]


def test_sidecars_end_in_reverse_order() -> None:
    stop = Stop(NOW + 30, HookState.DONE)
    assert actions(stopping(AGENT, stop), stopping(PROXY, stop), done(WORK), end_by=NOW + 30) == [
        ("TERMINATE", "proxy")
    ]


def test_when_the_grace_is_over_a_sidecar_waits_no_longer() -> None:
    stop = Stop(NOW, HookState.DONE)
    terminated = replace(stop, terminated_at=NOW - 1, killed=True)
    assert actions(stopping(AGENT, stop), stopping(WORK, terminated), end_by=NOW) == [("TERMINATE", "agent")]


def test_a_running_hook_holds_sigterm_back_until_the_deadline() -> None:
    hook = Stop(NOW + 5, HookState.RUNNING)
    assert actions(stopping(WORK, hook), end_by=NOW + 5) == []
    assert actions(stopping(WORK, replace(hook, deadline=NOW)), end_by=NOW + 5) == [("TERMINATE", "work")]


def test_a_shorter_grace_given_later_counts() -> None:
    stop = Stop(NOW + 600, HookState.DONE, terminated_at=NOW - 10)
    assert actions(stopping(WORK, stop), end_by=NOW + 600) == []
    assert actions(stopping(WORK, stop), end_by=NOW - 1) == [("KILL", "work")]


def test_sigkill_never_follows_sigterm_at_once() -> None:
    stop = Stop(NOW - 10, HookState.DONE, terminated_at=NOW)
    decided = plan(PodView("Always", [stopping(WORK, stop)], NOW - 10), NOW)
    assert decided.actions == ()
    assert decided.ask_again_at == NOW + MINIMUM_KILL_DELAY_SECONDS


def test_an_unhealthy_container_is_stopped_alone() -> None:
    sick = replace(running(WORK), unhealthy_grace=7.0)
    decided = plan(PodView("Always", [running(AGENT), sick]), NOW)
    assert decided.actions == (Action(Verb.BEGIN_STOP, "work", NOW + 7.0),)


def test_an_ending_pod_is_finished_when_no_container_is_alive() -> None:
    starting = replace(WORK, state=RunState.STARTING)
    assert not plan(PodView("Always", [done(AGENT), starting], NOW), NOW).finished
    assert plan(PodView("Always", [done(AGENT), WORK], NOW), NOW).finished


ROLES = st.sampled_from(Role)
VIEWS = st.builds(
    ContainerView,
    name=st.just("c"),
    role=ROLES,
    state=st.sampled_from(RunState),
    exit_code=st.sampled_from([0, 1]),
    started=st.booleans(),
    start_at=st.sampled_from([0.0, NOW + 1]),
    unhealthy_grace=st.sampled_from([None, 3.0]),
    stop=st.none()
    | st.builds(
        Stop,
        deadline=st.sampled_from([NOW - 1, NOW + 1]),
        pre_stop=st.sampled_from(HookState),
        terminated_at=st.sampled_from([None, NOW - 5]),
        killed=st.booleans(),
    ),
)


@given(st.lists(VIEWS, min_size=1, max_size=6), st.sampled_from([None, NOW - 1, NOW + 9]))
def test_whatever_the_situation_no_living_container_is_started_and_an_ending_pod_starts_none(
    views: list[ContainerView], end_by: float | None
) -> None:
    named = [
        replace(view, name=str(index))
        for index, view in enumerate(sorted(views, key=lambda view: view.role is Role.MAIN))
    ]
    decided = plan(PodView("Always", named, end_by), NOW)
    started = {action.container for action in decided.actions if action.verb is Verb.START}
    alive = {view.name for view in named if view.state in {RunState.RUNNING, RunState.STARTING}}
    assert not started & alive
    assert not (started and end_by is not None)
    assert all(action.container in alive for action in decided.actions if action.verb is not Verb.START)
