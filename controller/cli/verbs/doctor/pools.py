"""Checks of the pools, and of what each pool needs around it: Secrets, budgets, quotas, priority. Pure."""

from collections.abc import Iterator, Mapping
from itertools import chain

from controller import names
from controller.cli.verbs.doctor.facts import Facts
from controller.cli.verbs.doctor.findings import Finding, State, listed
from controller.cli.verbs.doctor.reading import condition, controller_log, counted, judged, known, name_of
from controller.kube.api import Object


def pools(facts: Facts) -> Iterator[Finding]:
    """What the pools themselves say is wrong."""
    check = "pools"
    return judged(check, (facts.pools,), _bad_conditions(check, facts), counted(len(known(facts.pools)), "pool"))


def _bad_conditions(check: str, facts: Facts) -> Iterator[Finding]:
    for pool in known(facts.pools):
        for kind, bad in (("Degraded", "True"), ("AbleToScale", "False"), ("Protected", "False")):
            entry = condition(pool, kind)
            if entry.get("status") == bad:
                fails = kind == "Protected" or entry.get("reason") == "AgentTooOld"
                yield Finding(
                    check=check,
                    state=State.FAILS if fails else State.WARNS,
                    found=f"SlotPool {name_of(pool)}: {entry.get('reason')}: {entry.get('message')}",
                    object=f"SlotPool {name_of(pool)}",
                    advice="see its conditions and Events",
                    command=_on("describe", "slotpool", pool),
                )


def agents(facts: Facts) -> Iterator[Finding]:
    """The agents' images: one, but while a new one is rolled out."""
    check = "agents' versions"
    images: dict[str, int] = {}
    for pod in known(facts.pods):
        for container in (pod.get("spec") or {}).get("initContainers") or ():
            if container["name"] == names.AGENT_CONTAINER:
                images[container["image"]] = images.get(container["image"], 0) + 1
    found = ", ".join(f"{image} ({count})" for image, count in sorted(images.items()))
    several = Finding(
        check=check,
        state=State.WARNS,
        found=found,
        advice="a Pod keeps the agent that it was made with; `podslots drain POD` replaces it once it is idle",
        command="podslots get pods --all-namespaces --output wide",
    )
    return judged(check, (facts.pods,), [several] if len(images) > 1 else [], found or "no Pods")


def secrets(facts: Facts) -> Iterator[Finding]:
    """Each pool's token Secret: there, with the token that the controller uses, and kept while there are Pods."""
    check = "token Secrets"
    well = counted(len(known(facts.secrets)), "Secret")
    return judged(check, (facts.pools, facts.secrets), _wrong_secrets(check, facts), well)


def _wrong_secrets(check: str, facts: Facts) -> Iterator[Finding]:
    there = {name_of(secret): secret for secret in known(facts.secrets)}
    for pool in known(facts.pools):
        name = f"{pool['metadata']['namespace']}/{names.token_secret(pool['metadata']['name'])}"
        secret = there.get(name)
        problem = "is missing" if secret is None else _secret_problem(secret)
        if problem:
            yield _for_the_controller(check, facts, f"Secret {name}", problem, "repairs")


def _secret_problem(secret: Object) -> str:
    current = (secret["metadata"].get("annotations") or {}).get(names.CURRENT_TOKEN)
    if not current or current not in (secret.get("data") or {}):
        return "does not have the token that its annotation names"
    if names.TOKENS_FINALIZER not in (secret["metadata"].get("finalizers") or ()):
        return "lacks its finalizer"
    return ""


def _for_the_controller(check: str, facts: Facts, about: str, problem: str, mends: str) -> Finding:
    """What the controller `mends` by itself, if it is well."""
    return Finding(
        check=check,
        state=State.FAILS,
        found=f"{about} {problem}",
        object=about,
        advice=f"the controller {mends} it within seconds; if it does not, look at the controller's log",
        command=controller_log(facts),
    )


def budgets(facts: Facts) -> Iterator[Finding]:
    """Each pool's budget, and those of others over the same Pods: Kubernetes evicts no Pod that has two."""
    check = "disruption budgets"
    wrong = chain(_missing_budgets(check, facts), _budgets_of_others(check, facts))
    return judged(check, (facts.pools, facts.budgets, facts.pods), wrong, "one for each pool")


def _missing_budgets(check: str, facts: Facts) -> Iterator[Finding]:
    there = {name_of(budget) for budget in known(facts.budgets)}
    for pool in known(facts.pools):
        name = f"{pool['metadata']['namespace']}/{names.disruption_budget(pool['metadata']['name'])}"
        if name not in there:
            yield _for_the_controller(check, facts, f"PodDisruptionBudget {name}", "is missing", "makes")


def _budgets_of_others(check: str, facts: Facts) -> Iterator[Finding]:
    for budget in known(facts.budgets):
        if names.POOL_LABEL in (budget["metadata"].get("labels") or {}):
            continue
        selector = (budget.get("spec") or {}).get("selector")
        also = [pod["metadata"]["name"] for pod in known(facts.pods) if _covers(budget, selector, pod)]
        if also:
            yield Finding(
                check=check,
                state=State.FAILS,
                found=f"PodDisruptionBudget {name_of(budget)} also covers {listed(sorted(also))} of pools",
                object=f"PodDisruptionBudget {name_of(budget)}",
                advice="a Pod with two budgets can't be evicted, and `kubectl drain` fails on it; narrow its selector",
                command=_on("edit", "poddisruptionbudget", budget),
            )


def quotas(facts: Facts) -> Iterator[Finding]:
    """Whether a namespace's quota of Pods lets its pools reach their largest size."""
    check = "quotas"
    well = counted(len(known(facts.quotas)), "quota")
    return judged(check, (facts.quotas, facts.pools), _small_quotas(check, facts), well)


def _small_quotas(check: str, facts: Facts) -> Iterator[Finding]:
    for quota in known(facts.quotas):
        status = quota.get("status") or {}
        left = min((_left(status, key) for key in ("pods", "count/pods")), default=None, key=_or_endless)
        wanted = sum(
            _room(pool)
            for pool in known(facts.pools)
            if pool["metadata"]["namespace"] == quota["metadata"]["namespace"]
        )
        if left is not None and left < wanted:
            yield Finding(
                check=check,
                state=State.WARNS,
                found=f"ResourceQuota {name_of(quota)} allows {left} more Pods, its pools may want {wanted}",
                object=f"ResourceQuota {name_of(quota)}",
                advice="raise it, or lower maxReplicas of the pools in this namespace",
                command=_on("edit", "resourcequota", quota),
            )


def priority(facts: Facts) -> Iterator[Finding]:
    """Pools whose Pods have no priority: the scheduler tries to preempt them, is refused, and tries again."""
    check = "priority"
    well = counted(len(known(facts.pools)), "pool")
    return judged(check, (facts.priorities, facts.pools), _without_priority(check, facts), well)


def _without_priority(check: str, facts: Facts) -> Iterator[Finding]:
    for pool in known(facts.pools):
        if not ((pool["spec"].get("template") or {}).get("spec") or {}).get("priorityClassName"):
            yield Finding(
                check=check,
                state=State.WARNS,
                found=f"SlotPool {name_of(pool)} has no priorityClassName in its template",
                object=f"SlotPool {name_of(pool)}",
                advice="give its Pods a priority, or the scheduler tries again and again to preempt them",
                command=f"{_on('patch', 'slotpool', pool)} --type merge --patch '{_PRIORITY}'",
            )


_PRIORITY = '{"spec":{"template":{"spec":{"priorityClassName":"podslots"}}}}'


def _on(verb: str, kind: str, obj: Object) -> str:
    """A kubectl command on an object."""
    metadata = obj["metadata"]
    return f"kubectl -n {metadata['namespace']} {verb} {kind} {metadata['name']}"


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
