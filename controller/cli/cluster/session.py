"""A command's connection to the Kubernetes API, chosen as kubectl chooses it, and its errors as people read them."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import click

from controller import names
from controller.cli.cluster.called import Cluster, command
from controller.cli.cluster.nearest import meant
from controller.cli.cluster.refusals import in_words
from controller.cli.local.processes import KUBECONFIG, Standing, standing
from controller.errors import ApiError, ApiUnavailable, NoConfiguration, NotFound, PodslotsError
from controller.kube.access import KubeSettings
from controller.kube.api import NAMESPACES, PODS, Object, Resource
from controller.kube.blocking import BlockingClient

T = TypeVar("T")
STRICT = "strict decoding error: "
"""How the API server begins to say which fields it does not know."""
MOST_NAMES = 500
"""Objects that are looked at to complete a name, or to guess what was meant by one."""
CONFIGURATION_HINT = "Name a kubeconfig with --kubeconfig or KUBECONFIG, or start a cluster here: podslots local up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What the options and the environment say about the cluster."""

    settings: KubeSettings
    now: Callable[[], datetime]
    cluster: Cluster = field(default_factory=Cluster)

    def namespace(self, api: BlockingClient) -> str:
        """The one that was named, else the context's, else `default`."""
        return self.cluster.namespace or api.default_namespace or "default"

    @contextmanager
    def open(self) -> Iterator["Connection"]:
        """A connection, for as long as one command runs."""
        with closing(BlockingClient(self.settings, self.now, hint=lambda: _hint(self.settings))) as api:
            yield Connection(api=api, namespace=self.namespace(api), now=self.now, cluster=self.cluster)

    def run(
        self, command: Callable[["Connection"], T], *, failure: type[click.ClickException] = click.ClickException
    ) -> T:
        """Run a command. Expected errors become one line, and the exit code of `failure`."""
        try:
            with self.open() as connection:
                return command(connection)
        except PodslotsError as error:
            raise failure(explain(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The API and the namespace that names are looked up in."""

    api: BlockingClient
    namespace: str
    now: Callable[[], datetime]
    cluster: Cluster = field(default_factory=Cluster)

    @property
    def homes(self) -> tuple[str, ...]:
        """Namespaces in which the controller may be: where the base has it, here, and where one machine has it."""
        return tuple(dict.fromkeys((names.CONTROLLER_NAMESPACE, self.namespace, "default")))

    def list_all(
        self, resource: Resource, *, everywhere: bool, label_selector: str = "", field_selector: str = ""
    ) -> list[Object]:
        """Every object of a kind, over all pages."""
        return self.list_with_version(
            resource, everywhere=everywhere, label_selector=label_selector, field_selector=field_selector
        )[0]

    def list_with_version(
        self, resource: Resource, *, everywhere: bool, label_selector: str = "", field_selector: str = ""
    ) -> tuple[list[Object], str]:
        """The same, with the resourceVersion that a watch goes on from."""
        items: list[Object] = []
        token = ""
        while True:
            page = self.api.list_page(
                resource,
                None if everywhere else self.namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                continue_token=token,
            )
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            token = metadata.get("continue") or ""
            if not token:
                return items, str(metadata.get("resourceVersion") or "")

    def get(self, resource: Resource, name: str) -> Object:
        """One object; a missing one is a clear error."""
        try:
            return self.api.get(resource, self.namespace, name)
        except NotFound as error:
            raise click.ClickException(self.absence(resource, name)) from error

    def absence(self, resource: Resource, name: str, *, everywhere: bool = False) -> str:
        """What to say of an object that is not there: where it was looked for, and what may have been meant."""
        if everywhere:
            return f"no {resource.kind} {name} in any namespace{self._nearest(resource, name, everywhere=True)}"
        instead = self.lack_of_namespace() or self._elsewhere(resource, name) or self._nearest(resource, name)
        return f"no {resource.kind} {name} in namespace {self.namespace}{instead}"

    def _elsewhere(self, resource: Resource, name: str) -> str:
        """That another namespace has one of this name, if we may see it there."""
        found = self.some(resource, everywhere=True, label_selector=_label(resource), name=name)
        homes = [obj["metadata"]["namespace"] for obj in found if obj["metadata"]["namespace"] != self.namespace]
        return f"; there is one in namespace {homes[0]}" if homes else ""

    def _nearest(self, resource: Resource, name: str, *, everywhere: bool = False) -> str:
        """The name that comes nearest, if we may see it."""
        there = self.some(resource, everywhere=everywhere, label_selector=_label(resource))
        return meant(name, {str(obj["metadata"]["name"]) for obj in there} - {name})

    def some(
        self, resource: Resource, *, everywhere: bool, label_selector: str = "", name: str | None = None
    ) -> list[Object]:
        """Objects of a kind, one page of them at most, for a hint: none if they can't be had."""
        try:
            page = self.api.list_page(
                resource,
                None if everywhere else self.namespace,
                label_selector=label_selector,
                field_selector=f"metadata.name={name}" if name else "",
                limit=MOST_NAMES,
            )
        except PodslotsError:
            return []
        return page.get("items") or []

    def lack_of_namespace(self) -> str:
        """What to add where nothing was found: that the namespace itself is not there, if that may be known."""
        try:
            self.api.get(NAMESPACES, None, self.namespace)
        except NotFound:
            return f". There is no namespace {self.namespace}"
        except PodslotsError:
            pass
        return ""


def _label(resource: Resource) -> str:
    """Of Pods those of pools are meant."""
    return names.POOL_LABEL if resource is PODS else ""


def settings(
    environ: Mapping[str, str], *, kubeconfig: str | None, context: str | None, local_kubeconfig: str | None
) -> KubeSettings:
    """As kubectl: --kubeconfig, KUBECONFIG, the Pod's own account, ~/.kube/config.

    PODSLOTS_SERVER comes before KUBECONFIG; what a person names on the command line comes before both. A cluster
    embedded by `podslots local` in this folder comes after KUBECONFIG and before the rest.
    """
    found = KubeSettings.from_environ(environ)
    if kubeconfig or context:
        found = replace(found, server=None, token=None)
    return replace(
        found,
        kubeconfig=kubeconfig or found.kubeconfig or local_kubeconfig,
        context=context or found.context,
    )


def explain(error: PodslotsError) -> str:
    """What went wrong, without the machine's words around it."""
    if isinstance(error, ApiError):
        # Before this the server shows all of the object, if it was a patch.
        return in_words(error.message.rpartition(STRICT)[2]) or str(error)
    if isinstance(error, NoConfiguration):
        return f"{error}. {CONFIGURATION_HINT}"
    if isinstance(error, ApiUnavailable):
        return f"the Kubernetes API can't be reached: {error}"
    return str(error)


def _hint(settings: KubeSettings) -> str:
    """What to say when nobody answers, if the server is that of a local cluster which was stopped."""
    if not settings.kubeconfig or settings.server:
        return ""
    folder = Path(settings.kubeconfig).absolute().parent.parent
    if not (folder / KUBECONFIG).is_file() or (stands := standing(folder)) is Standing.RUNS:
        return ""
    return f". The local cluster in {folder} {stands}. Start it again: {local_command('up', folder)}"


def local_command(verb: str, folder: Path) -> str:
    """`podslots local VERB` for the cluster in an absolute folder, to be copied; it holds in any folder."""
    chosen = "" if folder == LOCAL_FOLDER.absolute() else f" --state-dir {shlex.quote(str(folder))}"
    return f"{command()} local {verb}{chosen}"


LOCAL_FOLDER = Path(".podslots") / "local"
"""Where `podslots local` keeps its cluster, unless it is told otherwise."""
