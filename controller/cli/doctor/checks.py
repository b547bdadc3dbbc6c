"""The checks. Each is a function of the facts, and gives the findings of one thing. Pure."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from controller import names
from controller.cli.doctor.facts import Facts, Objects
from controller.cli.doctor.findings import Finding, State, Unseen
from controller.cli.tables import age_text
from controller.kube.api import Object

OLDEST, NEWEST, WITH_POLICIES = (1, 29), (1, 37), (1, 30)
"""Minor versions of Kubernetes: native sidecars from 1.29 on, admission policies from 1.30."""
MOST_SKEW = timedelta(seconds=5)
"""Leases and time limits are counted on each machine's own clock; people compare times all the same."""
LATE = timedelta(seconds=60)
"""A Lease that was not renewed for so long: its holder is away."""
MOST_NAMED = 5
_APPLY = "apply the manifests: kubectl apply -k manifests/base"


def kubernetes(facts: Facts) -> Iterator[Finding]:
    """The API server's version."""
    check = "Kubernetes version"
    if isinstance(facts.version, Unseen):
        yield _unseen(check, facts.version)
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
        yield _unseen(check, facts.server_time)
        return
    early, late = facts.asked - facts.server_time - timedelta(seconds=1), facts.server_time - facts.answered
    skew = max(early, late, timedelta())
    yield _skew(check, skew, "this machine", "ahead of" if early > late else "behind")


def definitions(facts: Facts) -> Iterator[Finding]:
    """The kinds: there, served, and those of this version."""
    check = "definitions"
    if isinstance(facts.definitions, Unseen):
        yield _unseen(check, facts.definitions)
        return
    there = {found["metadata"]["name"]: found for found in facts.definitions}
    wanted = [document for document in facts.shipped_definitions if document["kind"] == "CustomResourceDefinition"]
    for document in wanted:
        name = document["metadata"]["name"]
        found = there.get(name)
        if found is None:
            yield Finding(check=check, state=State.FAILS, found=f"{name} is missing", advice=_APPLY)
        elif not _condition(found, "Established"):
            yield Finding(
                check=check, state=State.FAILS, found=f"{name} is not served", advice=f"kubectl describe crd {name}"
            )
        elif not contains(found["spec"], document["spec"]):
            yield Finding(
                check=check, state=State.WARNS, found=f"{name} is of another version than this command", advice=_APPLY
            )
        else:
            yield Finding(check=check, state=State.OK, found=name)


def policies(facts: Facts) -> Iterator[Finding]:
    """The admission policies: there, bound, and those of this version, whoever the controller is in them."""
    check = "policies"
    if (unseen := _first_unseen(facts.policies, facts.bindings)) is not None:
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
        for document in _known(objects)
    }
    shipped = [document for document in facts.shipped_policies if document["kind"].startswith("ValidatingAdmission")]
    wrong = False
    for document in shipped:
        kind, name = document["kind"], document["metadata"]["name"]
        spec = there.get((kind, name))
        if spec is None:
            wrong = True
            yield Finding(check=check, state=State.FAILS, found=f"{kind} {name} is missing", advice=_APPLY)
        elif not contains(_of_anybody(spec), _of_anybody(document["spec"])):
            wrong = True
            yield Finding(
                check=check, state=State.FAILS, found=f"{kind} {name} is not the one of this version", advice=_APPLY
            )
    if not wrong:
        count = sum(document["kind"] == "ValidatingAdmissionPolicy" for document in shipped)
        yield Finding(check=check, state=State.OK, found=f"{count} in force")


def controller(facts: Facts) -> Iterator[Finding]:
    """Whether one leads."""
    check = "controller"
    if isinstance(facts.leader, Unseen):
        yield _unseen(check, facts.leader)
        return
    spec = (facts.leader or {}).get("spec") or {}
    holder, renewed = spec.get("holderIdentity"), _time(spec.get("renewTime"))
    advice = "look at its Pods: kubectl -n podslots-system get pods; name its namespace with --controller-namespace"
    if not holder or renewed is None:
        yield Finding(check=check, state=State.FAILS, found="none leads", advice=advice)
        return
    lasts = timedelta(seconds=float(spec.get("leaseDurationSeconds") or 15))
    since = _server_now(facts) - renewed
    if since > max(lasts, LATE):
        found = f"{holder} has not renewed its Lease for {age_text(since)}"
        yield Finding(check=check, state=State.FAILS, found=found, advice=advice)
        return
    yield Finding(check=check, state=State.OK, found=f"{holder} leads")
    yield _skew("clock of the controller", max(-since, timedelta()), str(holder), "ahead of")


def node_clocks(facts: Facts) -> Iterator[Finding]:
    """Kubelets renew their Leases every 10 s: one renewed in the future has its clock ahead."""
    check = "clocks of nodes"
    if isinstance(facts.node_leases, Unseen):
        yield _unseen(check, facts.node_leases)
        return
    now = _server_now(facts)
    ahead = {
        lease["metadata"]["name"]: renewed - now
        for lease in facts.node_leases
        if (renewed := _time((lease.get("spec") or {}).get("renewTime"))) is not None and renewed - now > MOST_SKEW
    }
    if not ahead:
        yield Finding(check=check, state=State.OK, found=counted(len(facts.node_leases), "node"))
    for node, skew in sorted(ahead.items()):
        yield _skew(check, skew, node, "ahead of")


def pools(facts: Facts) -> Iterator[Finding]:
    """What the pools themselves say is wrong."""
    check = "pools"
    if isinstance(facts.pools, Unseen):
        yield _unseen(check, facts.pools)
        return
    wrong = False
    for pool in facts.pools:
        for kind, bad in (("Degraded", "True"), ("AbleToScale", "False"), ("Protected", "False")):
            entry = _entry(pool, kind)
            if entry.get("status") == bad:
                wrong = True
                state = State.FAILS if kind == "Protected" or entry.get("reason") == "AgentTooOld" else State.WARNS
                found = f"{_name(pool)}: {entry.get('reason')}: {entry.get('message')}"
                yield Finding(check=check, state=state, found=found, advice="see the conditions of the pool")
    if not wrong:
        yield Finding(check=check, state=State.OK, found=counted(len(facts.pools), "pool"))


def agents(facts: Facts) -> Iterator[Finding]:
    """The agents' images: one, but while a new one is rolled out."""
    check = "agents' versions"
    if isinstance(facts.pods, Unseen):
        yield _unseen(check, facts.pods)
        return
    images: dict[str, int] = {}
    for pod in facts.pods:
        for container in (pod.get("spec") or {}).get("initContainers") or ():
            if container["name"] == names.AGENT_CONTAINER:
                images[container["image"]] = images.get(container["image"], 0) + 1
    found = ", ".join(f"{image} ({count})" for image, count in sorted(images.items()))
    if len(images) > 1:
        advice = "Pods keep the agent they were made with; `podslots drain POD` replaces one as it falls idle"
        yield Finding(check=check, state=State.WARNS, found=found, advice=advice)
    else:
        yield Finding(check=check, state=State.OK, found=found or "no Pods")


def secrets(facts: Facts) -> Iterator[Finding]:
    """Each pool's token Secret: there, with the token that the controller uses, and kept while there are Pods."""
    check = "token Secrets"
    if (unseen := _first_unseen(facts.pools, facts.secrets)) is not None:
        yield _unseen(check, unseen)
        return
    there = {(s["metadata"]["namespace"], s["metadata"]["name"]): s for s in _known(facts.secrets)}
    wrong = False
    for pool in _known(facts.pools):
        namespace, name = pool["metadata"]["namespace"], names.token_secret(pool["metadata"]["name"])
        secret = there.get((namespace, name))
        problem = "is missing" if secret is None else _secret_problem(secret)
        if problem:
            wrong = True
            advice = "the controller mends it within seconds; if it does not, look at its log"
            yield Finding(check=check, state=State.FAILS, found=f"{namespace}/{name} {problem}", advice=advice)
    if not wrong:
        yield Finding(check=check, state=State.OK, found=counted(len(there), "Secret"))


def _secret_problem(secret: Object) -> str:
    current = (secret["metadata"].get("annotations") or {}).get(names.CURRENT_TOKEN)
    if not current or current not in (secret.get("data") or {}):
        return "does not have the token that its annotation names"
    if names.TOKENS_FINALIZER not in (secret["metadata"].get("finalizers") or ()):
        return "lacks its finalizer"
    return ""


def budgets(facts: Facts) -> Iterator[Finding]:
    """Each pool's budget, and those of others over the same Pods: Kubernetes evicts no Pod that has two."""
    check = "disruption budgets"
    if (unseen := _first_unseen(facts.pools, facts.budgets, facts.pods)) is not None:
        yield _unseen(check, unseen)
        return
    wrong = False
    there = {(b["metadata"]["namespace"], b["metadata"]["name"]) for b in _known(facts.budgets)}
    for pool in _known(facts.pools):
        namespace, name = pool["metadata"]["namespace"], names.disruption_budget(pool["metadata"]["name"])
        if (namespace, name) not in there:
            wrong = True
            advice = "the controller makes it within seconds; if it does not, look at its log and its rights"
            yield Finding(check=check, state=State.FAILS, found=f"{namespace}/{name} is missing", advice=advice)
    for budget in _known(facts.budgets):
        if names.POOL_LABEL in (budget["metadata"].get("labels") or {}):
            continue
        selector = (budget.get("spec") or {}).get("selector")
        also = [pod["metadata"]["name"] for pod in _known(facts.pods) if _covers(budget, selector, pod)]
        if also:
            wrong = True
            found = f"{_name(budget)} covers {_listed(also)} of pools, too"
            advice = (
                f"an eviction of a Pod with two budgets is a 500, and `kubectl drain` fails: narrow {_name(budget)}"
            )
            yield Finding(check=check, state=State.FAILS, found=found, advice=advice)
    if not wrong:
        yield Finding(check=check, state=State.OK, found="one for each pool")


def quotas(facts: Facts) -> Iterator[Finding]:
    """Whether a namespace's quota of Pods lets its pools reach their largest size."""
    check = "quotas"
    if (unseen := _first_unseen(facts.quotas, facts.pools)) is not None:
        yield _unseen(check, unseen)
        return
    wrong = False
    for quota in _known(facts.quotas):
        status = quota.get("status") or {}
        left = min((_left(status, key) for key in ("pods", "count/pods")), default=None, key=_or_endless)
        wanted = sum(
            _room(pool)
            for pool in _known(facts.pools)
            if pool["metadata"]["namespace"] == quota["metadata"]["namespace"]
        )
        if left is not None and left < wanted:
            wrong = True
            found = f"{_name(quota)} has room for {left} more Pods, its pools may want {wanted}"
            yield Finding(check=check, state=State.WARNS, found=found, advice="raise the quota, or lower maxReplicas")
    if not wrong:
        yield Finding(check=check, state=State.OK, found=counted(len(_known(facts.quotas)), "quota"))


def priority(facts: Facts) -> Iterator[Finding]:
    """Pools without a priority are preempted by Pods that have one, as far as nothing refuses that: over and over."""
    check = "priority"
    if (unseen := _first_unseen(facts.priorities, facts.pools)) is not None:
        yield _unseen(check, unseen)
        return
    without = [
        _name(pool)
        for pool in _known(facts.pools)
        if not ((pool["spec"].get("template") or {}).get("spec") or {}).get("priorityClassName")
    ]
    if without:
        advice = (
            "set priorityClassName: podslots in the templates: the scheduler tries a refused preemption again and again"
        )
        yield Finding(check=check, state=State.WARNS, found=f"none in {_listed(without)}", advice=advice)
    else:
        yield Finding(check=check, state=State.OK, found=counted(len(_known(facts.pools)), "pool"))


CHECKS: tuple[Callable[[Facts], Iterable[Finding]], ...] = (
    kubernetes, clock, definitions, policies, controller, node_clocks,
    pools, agents, secrets, budgets, quotas, priority,
)  # fmt: skip


def controller_user(facts: Facts) -> str | None:
    """Whom the installed policies let through."""
    for policy in _known(facts.policies):
        if match := _USER.search(str(policy["spec"])):
            return match[0]
    return None


_USER = re.compile(r"system:serviceaccount:[a-z0-9-]+:[a-z0-9.-]+")


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


def _covers(budget: Object, selector: Object | None, pod: Object) -> bool:
    """Whether a budget's selector takes in a Pod of its namespace. None selects nothing, an empty one everything."""
    if selector is None or pod["metadata"]["namespace"] != budget["metadata"]["namespace"]:
        return False
    labels = pod["metadata"].get("labels") or {}
    same = all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return same and all(_expression_holds(entry, labels) for entry in selector.get("matchExpressions") or ())


def _expression_holds(entry: Object, labels: Mapping[str, str]) -> bool:
    value = labels.get(entry["key"])
    match entry["operator"]:
        case "In":
            return value in entry["values"]
        case "NotIn":
            return value not in entry["values"]
        case "Exists":
            return value is not None
        case _:
            return value is None


def _skew(check: str, skew: timedelta, who: str, how: str) -> Finding:
    if skew <= MOST_SKEW:
        return Finding(check=check, state=State.OK, found="within 5 s of the API server's")
    found = f"{who} is {age_text(skew)} {how} the API server"
    return Finding(check=check, state=State.WARNS, found=found, advice="have NTP set the clocks")


def counted(number: int, what: str) -> str:
    """`1 pool`, `2 pools`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def _server_now(facts: Facts) -> datetime:
    return facts.answered if isinstance(facts.server_time, Unseen) else facts.server_time


def _left(status: Object, key: str) -> int | None:
    hard, used = (str((status.get(part) or {}).get(key, "")) for part in ("hard", "used"))
    return int(hard) - int(used or "0") if hard.isdecimal() else None


def _or_endless(left: int | None) -> float:
    return float("inf") if left is None else left


def _room(pool: Object) -> int:
    """How many Pods a pool may still want."""
    spec, status = pool["spec"], pool.get("status") or {}
    most = (spec.get("autoscaling") or {}).get("maxReplicas") or spec.get("replicas") or 0
    return max(0, int(most) - int(status.get("replicas") or 0))


def _entry(obj: Object, kind: str) -> Object:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((entry for entry in conditions if entry.get("type") == kind), {})


def _condition(obj: Object, kind: str) -> bool:
    return bool(_entry(obj, kind).get("status") == "True")


def _unseen(check: str, why: Unseen) -> Finding:
    return Finding(check=check, state=State.UNSEEN, found=why.why)


def _first_unseen(*objects: Objects) -> Unseen | None:
    return next((found for found in objects if isinstance(found, Unseen)), None)


def _known(objects: Objects) -> list[Object]:
    return [] if isinstance(objects, Unseen) else objects


def _name(obj: Object) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


def _listed(found: list[str]) -> str:
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return ", ".join(sorted(found)[:MOST_NAMED]) + more


def _time(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
