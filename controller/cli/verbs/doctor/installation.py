"""Checks of what is installed once for the whole cluster, and of the clocks. Pure."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from controller import names
from controller.cli.show.times import age_text, time_or_none
from controller.cli.verbs.doctor.facts import Facts
from controller.cli.verbs.doctor.findings import Finding, State, Unseen
from controller.cli.verbs.doctor.reading import (
    APPLY,
    APPLY_COMMAND,
    condition,
    controller_namespace,
    counted,
    first_unseen,
    known,
    or_well,
    unseen,
)
from controller.kube.api import Object

OLDEST, NEWEST, WITH_POLICIES = (1, 29), (1, 37), (1, 30)
"""Minor versions of Kubernetes: native sidecars from 1.29 on, admission policies from 1.30."""
MOST_SKEW = timedelta(seconds=5)
"""Leases and time limits are counted on each machine's own clock; people compare times all the same."""
LATE = timedelta(seconds=60)
"""A Lease that was not renewed for so long: its holder is away."""
_USER = re.compile(r"system:serviceaccount:[a-z0-9-]+:[a-z0-9.-]+")


def kubernetes(facts: Facts) -> Iterator[Finding]:
    """The API server's version."""
    check = "Kubernetes version"
    if isinstance(facts.version, Unseen):
        yield unseen(check, facts.version)
        return
    match = re.match(r"v?(\d+)\.(\d+)", facts.version)
    number = (int(match[1]), int(match[2])) if match else (0, 0)
    if number < OLDEST:
        yield Finding(
            check=check, state=State.FAILS, found=facts.version, advice="1.29 at least is needed, 1.30 better"
        )
    elif number < WITH_POLICIES:
        text = "before 1.30 there are no admission policies: nothing holds back `kubectl delete pod`; upgrade"
        yield Finding(check=check, state=State.FAILS, found=facts.version, advice=text)
    elif number > NEWEST:
        yield Finding(check=check, state=State.WARNS, found=f"{facts.version}, newer than podslots was tried with")
    else:
        yield Finding(check=check, state=State.OK, found=facts.version)


def clock(facts: Facts) -> Iterator[Finding]:
    """This machine's clock against the API server's, which says whole seconds."""
    check = "clock here"
    if isinstance(facts.server_time, Unseen):
        yield unseen(check, facts.server_time)
        return
    early, late = facts.asked - facts.server_time - timedelta(seconds=1), facts.server_time - facts.answered
    skew = max(early, late, timedelta())
    yield _skew(check, skew, "this machine", "ahead of" if early > late else "behind")


def definitions(facts: Facts) -> Iterator[Finding]:
    """The kinds: there, served, and those of this version."""
    check = "definitions"
    if isinstance(facts.definitions, Unseen):
        yield unseen(check, facts.definitions)
        return
    there = {found["metadata"]["name"]: found for found in facts.definitions}
    wanted = [document for document in facts.shipped_definitions if document["kind"] == "CustomResourceDefinition"]
    for document in wanted:
        name = document["metadata"]["name"]
        found = there.get(name)
        about = f"CustomResourceDefinition {name}"
        if found is None:
            yield _to_apply(check, State.FAILS, about, f"{name} is missing")
        elif not _condition(found, "Established"):
            yield Finding(
                check=check,
                state=State.FAILS,
                found=f"{name} is not served",
                object=about,
                advice="see why in its conditions",
                command=f"kubectl describe crd {name}",
            )
        elif not contains(found["spec"], document["spec"]):
            yield _to_apply(check, State.WARNS, about, f"{name} is of another version than this command")
        else:
            yield Finding(check=check, state=State.OK, found=name)


def _to_apply(check: str, state: State, about: str, found: str) -> Finding:
    return Finding(check=check, state=state, found=found, object=about, advice=APPLY, command=APPLY_COMMAND)


def policies(facts: Facts) -> Iterator[Finding]:
    """The admission policies: present, bound, and of this version. The controller's account in them may be any."""
    check = "policies"
    if (unseen := first_unseen(facts.policies, facts.bindings)) is not None:
        text = "Kubernetes has them from 1.30 on; until then nothing holds back `kubectl delete pod`"
        yield Finding(
            check=check,
            state=State.FAILS if unseen.no_such_kind else State.UNSEEN,
            found=unseen.why,
            advice=text if unseen.no_such_kind else "",
        )
        return
    there = {
        (kind, document["metadata"]["name"]): document["spec"]
        for kind, objects in (
            ("ValidatingAdmissionPolicy", facts.policies),
            ("ValidatingAdmissionPolicyBinding", facts.bindings),
        )
        for document in known(objects)
    }
    shipped = [document for document in facts.shipped_policies if document["kind"].startswith("ValidatingAdmission")]
    count = sum(document["kind"] == "ValidatingAdmissionPolicy" for document in shipped)
    yield from or_well(check, _wrong_policies(check, shipped, there), f"{count} in force")


def _wrong_policies(check: str, shipped: list[Object], there: Mapping[tuple[str, str], Object]) -> Iterator[Finding]:
    for document in shipped:
        kind, name = document["kind"], document["metadata"]["name"]
        spec = there.get((kind, name))
        if spec is None:
            yield _to_apply(check, State.FAILS, f"{kind} {name}", f"{kind} {name} is missing")
        elif not contains(_of_anybody(spec), _of_anybody(document["spec"])):
            yield _to_apply(check, State.FAILS, f"{kind} {name}", f"{kind} {name} is not the one of this version")


def controller(facts: Facts) -> Iterator[Finding]:
    """Whether one leads."""
    check = "controller"
    if isinstance(facts.leader, Unseen):
        yield unseen(check, facts.leader)
        return
    spec = (facts.leader or {}).get("spec") or {}
    holder, renewed = spec.get("holderIdentity"), time_or_none(spec.get("renewTime"))
    namespace = controller_namespace(facts)
    about = f"Lease {namespace}/{names.LEADER_LEASE}"
    advice = "look at the controller's Pods; if it runs in another namespace, give that with --controller-namespace"
    command = f"kubectl -n {namespace} get pods -l app.kubernetes.io/name=podslots-controller"
    if not holder or renewed is None:
        found = "no controller leads"
        yield Finding(check=check, state=State.FAILS, found=found, object=about, advice=advice, command=command)
        return
    lasts = timedelta(seconds=float(spec.get("leaseDurationSeconds") or 15))
    since = _server_now(facts) - renewed
    if since > max(lasts, LATE):
        found = f"{holder} has not renewed its Lease for {age_text(since)}"
        yield Finding(check=check, state=State.FAILS, found=found, object=about, advice=advice, command=command)
        return
    yield Finding(check=check, state=State.OK, found=f"{holder} leads")
    yield _skew("clock of the controller", max(-since, timedelta()), str(holder), "ahead of")


def node_clocks(facts: Facts) -> Iterator[Finding]:
    """Kubelets renew their Leases every 10 s: one renewed in the future has its clock ahead."""
    check = "clocks of nodes"
    if isinstance(facts.node_leases, Unseen):
        yield unseen(check, facts.node_leases)
        return
    now = _server_now(facts)
    ahead = {
        lease["metadata"]["name"]: renewed - now
        for lease in facts.node_leases
        if (renewed := time_or_none((lease.get("spec") or {}).get("renewTime"))) is not None
        and renewed - now > MOST_SKEW
    }
    if not ahead:
        yield Finding(check=check, state=State.OK, found=counted(len(facts.node_leases), "node"))
    for node, skew in sorted(ahead.items()):
        yield _skew(check, skew, f"Node {node}", "ahead of")


def controller_user(facts: Facts) -> str | None:
    """Whom the installed policies let through."""
    for policy in known(facts.policies):
        if match := _USER.search(str(policy["spec"])):
            return match[0]
    return None


def contains(found: Any, wanted: Any) -> bool:
    """Whether all of `wanted` is in `found`, which an API server has given defaults."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(contains(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(contains(one, other) for one, other in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)


def _of_anybody(spec: Any) -> Any:
    """A policy without the name of the controller's account, which follows the namespace."""
    if isinstance(spec, Mapping):
        return {key: _of_anybody(value) for key, value in spec.items()}
    if isinstance(spec, list):
        return [_of_anybody(value) for value in spec]
    return _USER.sub("USER", spec) if isinstance(spec, str) else spec


def _skew(check: str, skew: timedelta, who: str, how: str) -> Finding:
    if skew <= MOST_SKEW:
        return Finding(check=check, state=State.OK, found="within 5 s of the API server's")
    found = f"{who} is {age_text(skew)} {how} the API server"
    return Finding(
        check=check,
        state=State.WARNS,
        found=found,
        object=who,
        advice="have NTP set the clock there; this shows how it stands",
        command="timedatectl",
    )


def _server_now(facts: Facts) -> datetime:
    return facts.answered if isinstance(facts.server_time, Unseen) else facts.server_time


def _condition(obj: Object, kind: str) -> bool:
    return bool(condition(obj, kind).get("status") == "True")
