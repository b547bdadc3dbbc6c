"""`podslots uninstall`: takes podslots off a cluster in the order that can't hang.

Whoever holds something is ended by who can end it: pools while the controller is there to drain their Pods, tasks while
it takes their finalizers off, definitions when nothing of theirs is left. Each run looks at what is there and goes on
from that, so it can be interrupted anywhere.
"""

import time
from collections.abc import Callable

import click

from controller import names
from controller.cli.arguments.verb import Verb, pass_session
from controller.cli.cluster.session import Connection, Session
from controller.cli.show.asking import Asker
from controller.cli.show.tables import FINAL_PHASES, phase
from controller.errors import ApiUnavailable, Conflict, NotFound
from controller.kube.api import (
    ADMISSION_BINDINGS,
    ADMISSION_POLICIES,
    BUDGETS,
    LEASES,
    NAMESPACES,
    PODS,
    SECRETS,
    SLOTPOOLS,
    SLOTTASKS,
    Object,
    Resource,
)

LOOK_AGAIN_SECONDS = 1.0
CONTROLLER_PATIENCE_SECONDS = 20.0
"""A leader renews its Lease every 2 s, and a standby takes over within 15 s: a Lease that stands longer is nobody's."""
NOT_DONE = 3
MOST_NAMED = 10

_RBAC, _ADMISSION = "rbac.authorization.k8s.io", "admissionregistration.k8s.io"
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
GUARDS = (
    ADMISSION_BINDINGS,
    ADMISSION_POLICIES,
    Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False),
)
"""What keeps others from Pods. Nothing is left to be kept when it goes."""
CONTROLLERS = (
    DEPLOYMENTS,
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    BUDGETS,
    Resource(_RBAC, "v1", "rolebindings", "RoleBinding"),
    Resource(_RBAC, "v1", "roles", "Role"),
    Resource("", "v1", "services", "Service"),
    Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Resource(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
)
"""The controller and its rights."""
OTHERS = (
    *(PODS, SECRETS, DEPLOYMENTS),
    Resource("", "v1", "configmaps", "ConfigMap"),
    Resource("", "v1", "services", "Service"),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    *(
        Resource("apps", "v1", plural, kind)
        for plural, kind in (("statefulsets", "StatefulSet"), ("daemonsets", "DaemonSet"))
    ),
)
"""What people put into a namespace; with one of these there, it is not ours to delete."""
PART = "app.kubernetes.io/part-of=podslots"
"""The label that the manifests put on all that they install."""

Say = Callable[[str], None]


class NotDoneYet(click.ClickException):
    """Something is still on its way; running it again goes on."""

    exit_code = NOT_DONE


class Uninstall:
    """One run. `home` is the controller's namespace."""

    def __init__(self, connection: Connection, home: str, *, cancel_tasks: bool, wait: bool, say: Say) -> None:
        self._api = connection.api
        self._connection = connection
        self._home = home
        self._cancel_tasks = cancel_tasks
        self._wait = wait
        self._say = say
        self._said: list[str] = []

    def run(self, confirm: Callable[[str], bool]) -> str:
        """All of it. Raises NotDoneYet where it would have to wait and should not."""
        pools, tasks, pods = self._all(SLOTPOOLS), self._all(SLOTTASKS), self._pods()
        held = [task for task in tasks if phase(task) not in FINAL_PHASES]
        if held and not self._cancel_tasks:
            raise click.ClickException(
                f"{len(held)} tasks have not ended: {_some(held)}. "
                "Wait for them, or have them cancelled with --cancel-tasks: what runs is stopped, an apply too"
            )
        controlled = not (pools or tasks or pods) or self._controller_runs()
        if not controlled and pods:
            raise click.ClickException(
                f"no controller runs in namespace {self._home}, and pools still have {len(pods)} Pods: {_some(pods)}. "
                "Only it can drain them: start it again. If their work matters no more, `podslots break-glass POD`, "
                "take the finalizer podslots.dev/pod-tracking off, delete them, and run this again"
            )
        if not confirm(_summary(self._home, pools, pods, tasks, held, controlled=controlled)):
            raise click.ClickException("nothing was done")
        if not controlled:
            self._let_go(pools, tasks)
        self._until("pools, and what is theirs", self._end_pools)
        self._until("tasks", self._end_tasks)
        self._until("policies", lambda: self._remove(GUARDS))
        self._until("the controller", self._end_controller)
        self._until("definitions", lambda: self._remove((DEFINITIONS,)))
        if others := self._others():
            return f"podslots is off this cluster; namespace {self._home} stays, for it has {', '.join(others)}"
        self._until(f"namespace {self._home}", lambda: self._remove((NAMESPACES,)))
        return "podslots is off this cluster"

    def _until(self, what: str, step: Callable[[], list[str]]) -> None:
        """Take a step again until nothing is left of what it removes."""
        while left := step():
            words = f"waiting for {what}: {', '.join(left[:MOST_NAMED])}{' …' if len(left) > MOST_NAMED else ''}"
            if not self._wait:
                raise NotDoneYet(f"{words}. Run this again, or with --wait")
            if left != self._said:
                self._said = left
                self._say(words)
            time.sleep(LOOK_AGAIN_SECONDS)

    # --- steps: each returns what is still there ----------------------------------------------------------------------

    def _end_pools(self) -> list[str]:
        """Cancelled tasks first: a pool waits for what its Pods hold."""
        tasks = self._all(SLOTTASKS)
        for task in tasks:
            if phase(task) not in FINAL_PHASES and not (task.get("spec") or {}).get("cancel"):
                self._patch(SLOTTASKS, task, {"spec": {"cancel": True}})
        pools = self._delete_all(SLOTPOOLS, self._all(SLOTPOOLS))
        secrets = self._all(SECRETS, names.POOL_LABEL)
        unended = [task for task in tasks if phase(task) not in FINAL_PHASES]
        return [*_words("SlotPool", pools), *_words("Pod", self._pods()), *_words("task", unended)] or (
            _words("Secret", secrets)
        )

    def _end_tasks(self) -> list[str]:
        """With the Leases of lockKeys that nobody released: nothing that they could keep apart runs any more."""
        tasks = self._delete_all(SLOTTASKS, self._all(SLOTTASKS))
        if not tasks:
            self._delete_all(LEASES, self._all(LEASES, names.LOCK_LABEL))
        return _words("SlotTask", tasks)

    def _end_controller(self) -> list[str]:
        """With the budgets of pools that the policies kept from the garbage collector."""
        left = self._remove(CONTROLLERS)
        self._delete_all(BUDGETS, self._all(BUDGETS, names.POOL_LABEL))
        if not left:
            leases = self._all(LEASES, namespace=self._home)
            self._delete_all(LEASES, [obj for obj in leases if obj["metadata"]["name"] == names.LEADER_LEASE])
        return left

    def _others(self) -> list[str]:
        """What else is in the controller's namespace, by which it is somebody else's too."""
        if self._home == "default" or self._home.startswith("kube-"):
            return ["a name of Kubernetes' own"]
        found: list[str] = []
        for resource in OTHERS:
            objects = self._all(resource, namespace=self._home)
            strangers = [obj for obj in objects if obj["metadata"]["name"] != "kube-root-ca.crt" and not _is_part(obj)]
            found += _words(resource.kind, strangers)
        return found[:MOST_NAMED]

    def _remove(self, kinds: tuple[Resource, ...]) -> list[str]:
        """Delete what was installed of these kinds."""
        left: list[str] = []
        for resource in kinds:
            found = self._all(resource, PART, self._home if resource.namespaced else None)
            ours = [obj for obj in found if resource.namespaced or self._is_ours(resource, obj)]
            left += _words(resource.kind, self._delete_all(resource, ours))
        return left

    def _is_ours(self, resource: Resource, obj: Object) -> bool:
        name = str(obj["metadata"]["name"])
        if resource is NAMESPACES:
            return name == self._home
        return name.startswith("podslots") or name.endswith(f".{names.GROUP}")

    def _let_go(self, pools: list[Object], tasks: list[Object]) -> None:
        """Take our finalizers off where no controller does. There are no Pods: nothing of it runs anywhere."""
        for resource, finalizer, found in (
            (SLOTPOOLS, names.POOL_FINALIZER, pools),
            (SLOTTASKS, names.TASK_FINALIZER, tasks),
            (SECRETS, names.TOKENS_FINALIZER, self._all(SECRETS, names.POOL_LABEL)),
        ):
            for obj in found:
                if finalizer in (others := obj["metadata"].get("finalizers") or []):
                    version = obj["metadata"]["resourceVersion"]
                    kept = [entry for entry in others if entry != finalizer]
                    self._patch(resource, obj, {"metadata": {"resourceVersion": version, "finalizers": kept}})
        for task in tasks:
            if phase(task) not in FINAL_PHASES:
                self._delete_all(SLOTTASKS, [task])
        self._delete_all(SECRETS, self._all(SECRETS, names.POOL_LABEL))

    # --- the API ------------------------------------------------------------------------------------------------------

    def _controller_runs(self) -> bool:
        """Whether somebody renews the leader's Lease. Seen by its changes: clocks may differ."""
        self._say("looking for the controller")
        until, first = time.monotonic() + CONTROLLER_PATIENCE_SECONDS, None
        while True:
            try:
                lease = self._api.get(LEASES, self._home, names.LEADER_LEASE)
            except NotFound:
                lease = {"metadata": {"resourceVersion": "none"}, "spec": {}}
            version, holder = lease["metadata"]["resourceVersion"], lease["spec"].get("holderIdentity")
            first = first or version
            if holder and version != first:
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(LOOK_AGAIN_SECONDS)

    def _pods(self) -> list[Object]:
        return self._all(PODS, names.POOL_LABEL)

    def _all(self, resource: Resource, selector: str = "", namespace: str | None = None) -> list[Object]:
        """All objects of a kind, everywhere or in one namespace; none where the kind is not, or no more."""
        items: list[Object] = []
        token = ""
        try:
            while True:
                page = self._api.list_page(resource, namespace, label_selector=selector, continue_token=token)
                items += page.get("items") or []
                token = (page.get("metadata") or {}).get("continue") or ""
                if not token:
                    return items
        except NotFound:
            return []

    def _delete_all(self, resource: Resource, objects: list[Object]) -> list[Object]:
        """Delete those that nobody has deleted yet; returns all that were there."""
        for obj in objects:
            metadata = obj["metadata"]
            if "deletionTimestamp" not in metadata:
                try:
                    self._api.delete(resource, metadata.get("namespace"), metadata["name"], uid=metadata["uid"])
                except (NotFound, Conflict):
                    continue
        return objects

    def _patch(self, resource: Resource, obj: Object, body: Object) -> None:
        metadata = obj["metadata"]
        try:
            self._api.patch(resource, metadata["namespace"], metadata["name"], body)
        except NotFound:
            return


def _is_part(obj: Object) -> bool:
    """Whether the manifests, or the controller's Deployment, made it."""
    labels = obj["metadata"].get("labels") or {}
    name, _, value = PART.partition("=")
    return labels.get(name) == value or labels.get("app.kubernetes.io/name") == "podslots-controller"


def _summary(
    home: str, pools: list[Object], pods: list[Object], tasks: list[Object], held: list[Object], *, controlled: bool
) -> str:
    lines = [
        "This takes podslots off the cluster, of all namespaces:",
        f"  {len(pools)} SlotPools, whose {len(pods)} Pods are drained and deleted, with their token Secrets",
        f"  {len(tasks)} SlotTasks with their outputs"
        + (f"; {len(held)} of them are cancelled first: {_some(held)}" if held else ", all of which have ended"),
        f"  the policies, the controller, the definitions, and namespace {home} unless something else is in it.",
    ]
    if not controlled:
        lines.append(f"No controller runs in namespace {home}: finalizers are taken off here. No Pods are left.")
    return "\n".join(lines)


def _words(kind: str, objects: list[Object]) -> list[str]:
    return [f"{kind} {_name(obj)}" for obj in objects]


def _name(obj: Object) -> str:
    metadata = obj["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if "namespace" in metadata else str(metadata["name"])


def _some(objects: list[Object]) -> str:
    """A few of them by name, with their phase."""
    shown = [f"{_name(obj)} ({phase(obj)})" for obj in objects[:MOST_NAMED]]
    return ", ".join(shown) + (", …" if len(objects) > MOST_NAMED else "")


def _home(connection: Connection) -> str:
    """Where a controller has its Lease; where the base puts it, if none has."""
    leases = connection.list_all(LEASES, everywhere=True)
    homes = sorted(obj["metadata"]["namespace"] for obj in leases if obj["metadata"]["name"] == names.LEADER_LEASE)
    if len(homes) > 1:
        raise click.ClickException(
            f"there are controllers in {', '.join(homes)}: name one with --controller-namespace. "
            "The pools and tasks of all namespaces go, whoever looks after them"
        )
    return homes[0] if homes else names.CONTROLLER_NAMESPACE


def take_off(
    connection: Connection,
    *,
    controller_namespace: str | None,
    cancel_tasks: bool,
    wait: bool,
    confirm: Callable[[str], bool],
    say: Say,
) -> str:
    """Take podslots off the cluster; returns what to say at the end."""
    home = controller_namespace or _home(connection)
    run = Uninstall(connection, home, cancel_tasks=cancel_tasks, wait=wait, say=say)
    try:
        return run.run(confirm)
    except ApiUnavailable as error:
        raise NotDoneYet(f"the Kubernetes API can't be reached: {error}. Run this again: it goes on") from error


@click.command(cls=Verb)
@click.option("--controller-namespace", help="Where it runs (default: where its Lease is).")
@click.option("--cancel-tasks", is_flag=True, help="Cancel tasks that have not ended; an apply that runs is stopped.")
@click.option("--wait", "patient", is_flag=True, help="Wait for Pods to be drained, and all else, and see it through.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@pass_session
def uninstall(
    session: Session, *, controller_namespace: str | None, cancel_tasks: bool, patient: bool, yes: bool
) -> None:
    """Take podslots off the cluster.

    Pools, tasks, policies, controller and definitions go, in the order that can't hang. Refuses while tasks have not
    ended, unless they are to be cancelled. Can be interrupted, and run again.

    Exit codes: 0 all of it is gone; 1 it was refused; 3 something is on its way out, run it again or with --wait.
    """
    line = session.run(
        lambda connection: take_off(
            connection,
            controller_namespace=controller_namespace,
            cancel_tasks=cancel_tasks,
            wait=patient,
            confirm=Asker(yes=yes, question="Uninstall podslots?"),
            say=lambda text: click.echo(text, err=True),
        )
    )
    click.echo(line)
