"""Small questions that the checks ask of what was read. Pure."""

from collections.abc import Iterable, Iterator

from controller import names
from controller.cli.verbs.doctor.facts import Facts, Objects
from controller.cli.verbs.doctor.findings import Finding, State, Unseen
from controller.kube.api import Object

APPLY = "apply the manifests of this version"
APPLY_COMMAND = "kubectl apply -k manifests/base"


def counted(number: int, what: str) -> str:
    """`1 pool`, `2 pools`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def unseen(check: str, why: Unseen) -> Finding:
    """The finding of a check that could not look."""
    return Finding(check=check, state=State.UNSEEN, found=why.why)


def first_unseen(*objects: Objects) -> Unseen | None:
    """Why the first of these that could not be read could not be."""
    return next((found for found in objects if isinstance(found, Unseen)), None)


def judged(check: str, needed: Iterable[Objects], wrong: Iterable[Finding], well: str) -> Iterator[Finding]:
    """What is wrong; if nothing is, `well`, what was found. Unseen if one of the facts that are needed is.

    `wrong` may be an iterator that is not begun before all that is needed is known to be there.
    """
    if (hidden := first_unseen(*needed)) is not None:
        yield unseen(check, hidden)
        return
    yield from or_well(check, wrong, well)


def or_well(check: str, wrong: Iterable[Finding], well: str) -> Iterator[Finding]:
    """What is wrong; if nothing is, `well`, what was found."""
    found = False
    for finding in wrong:
        found = True
        yield finding
    if not found:
        yield Finding(check=check, state=State.OK, found=well)


def known(objects: Objects) -> list[Object]:
    """The objects; none if they could not be read."""
    return [] if isinstance(objects, Unseen) else objects


def name_of(obj: Object) -> str:
    """`NAMESPACE/NAME`."""
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


def condition(obj: Object, kind: str) -> Object:
    """The condition of this type; empty if there is none."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((entry for entry in conditions if entry.get("type") == kind), {})


def controller_namespace(facts: Facts) -> str:
    """Where the controller runs: where its Lease is, else where the manifests install it."""
    lease = facts.leader if isinstance(facts.leader, dict) else {}
    return str((lease.get("metadata") or {}).get("namespace") or names.CONTROLLER_NAMESPACE)


def controller_log(facts: Facts) -> str:
    """The command that shows what the controller has logged lately."""
    return f"kubectl -n {controller_namespace(facts)} logs deployment/podslots-controller --since 10m"
