"""The spec of a SlotPool, parsed once from the object. The CRD refuses most mistakes; this refuses all of them."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from controller.names import WORKER_CONTAINER, agent_server_name
from controller.objects.autoscaling import MAX_REPLICAS, Autoscaling, parse_autoscaling
from controller.objects.fields import Fields
from controller.objects.signal import Signal

Layout = tuple[tuple[str, ...], ...]
"""The task types that each slot of a Pod accepts, by slot id."""

DEFAULT_LAYOUT: Layout = (("plan", "apply", "plan_and_apply"), ("plan",), ("plan",))
OUTPUT_BYTES = (1024, 1_000_000)
"""The least and the most that may be kept of an output: in base64 an object of 1.5 MiB has no room for more."""
MAX_SLOTS = 16
MAX_TYPES_OF_SLOT = 16
MAX_NAME_LENGTH = 253
MAX_REVISIONS = 100
MAX_RESERVATION_SECONDS = 365 * 86400
ROTATION_SECONDS = (60, 10 * 365 * 86400)
"""The shortest and the longest time that a token is used. A rotation takes minutes, and the next one waits for it."""
DEFAULT_GRACE_SECONDS = 600
"""How long steps may run on when a Pod is stopped from outside (a node that shuts down, a person's delete).

podslots itself deletes only Pods with idle slots, which end at once. Ten minutes let most applies finish. Kubernetes'
default of 30 s would cut them off in the middle. Few programs that remove nodes wait longer than ten minutes.
"""

TASK_TYPE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
"""Names of Secrets, and of hosts: as Kubernetes has them."""


class DeletionPolicy(StrEnum):
    """What happens to held slots when the pool is deleted."""

    DRAIN = "Drain"
    FORCE = "Force"


class Mode(StrEnum):
    """Who makes the Pods: the controller itself, or a Deployment that it makes and scales."""

    PODS = "Pods"
    DEPLOYMENT = "Deployment"


class UpdateType(StrEnum):
    """When Pods of an earlier template or layout are replaced."""

    WHEN_IDLE = "WhenIdle"
    ON_DELETE = "OnDelete"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStrategy:
    """How Pods of an earlier template are replaced: a few at a time, as they fall idle.

    A Pod that is to be replaced takes nothing new, so `max_unavailable` is at least 1. `max_surge` Pods may be there
    beyond the size, so that a new one serves before an old one has gone.
    """

    type: UpdateType = UpdateType.WHEN_IDLE
    max_unavailable: int = 1
    max_surge: int = 1
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS at the agents. The Secrets are the pool's namespace's, of the type that cert-manager writes.

    `client_secret`: agents require certificates that its `ca.crt` signed, and the controller shows its `tls.crt`.
    """

    secret: str
    server_name: str
    client_secret: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Who gets to the agents of new Pods, and how."""

    lock_reads: bool = False
    rotation_period_seconds: int = 30 * 86400
    tls: Tls | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLimits:
    """How much of a step's output is kept in an object, compressed: of any step, and of a plan that waits."""

    max_bytes: int = 262144
    waiting_max_bytes: int = 921600


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSpec:
    """What a SlotPool asks for. `template` is the user's PodTemplateSpec, unread (see `template`).

    `replicas` None: nobody said (see `fixed_size`).
    """

    replicas: int | None = None
    autoscaling: Autoscaling | None = None
    layout: Layout = DEFAULT_LAYOUT
    reservation_ttl_seconds: int = 86400
    output: OutputLimits = field(default_factory=OutputLimits)
    deletion_policy: DeletionPolicy = DeletionPolicy.DRAIN
    auth: Auth = field(default_factory=Auth)
    update: UpdateStrategy = field(default_factory=UpdateStrategy)
    revision_history_limit: int = 5
    mode: Mode = Mode.PODS
    template: dict[str, Any] = field(default_factory=dict)

    @property
    def has_workers(self) -> bool:
        """Whether the template has a `worker` container; without one the workload manages its slots itself."""
        spec = self.template.get("spec")
        containers = spec.get("containers") if isinstance(spec, dict) else None
        if not isinstance(containers, list):
            return False
        return any(isinstance(item, dict) and item.get("name") == WORKER_CONTAINER for item in containers)

    @property
    def takes_tasks(self) -> bool:
        """Whether SlotTasks can run in its Pods: not where a program takes the slots itself. No template: not known."""
        return not self.template or self.has_workers

    @property
    def grace_seconds(self) -> int:
        """How long the pool's Pods have to end."""
        spec = self.template.get("spec")
        given = spec.get("terminationGracePeriodSeconds") if isinstance(spec, dict) else None
        return given if type(given) is int else DEFAULT_GRACE_SECONDS

    @property
    def scaler(self) -> Autoscaling | None:
        """The autoscaling in force: none if it is absent or paused."""
        return None if self.autoscaling is None or self.autoscaling.paused else self.autoscaling

    @property
    def signal(self) -> Signal | None:
        """The Prometheus that the size follows, if it follows one."""
        return None if self.scaler is None else self.scaler.signal

    def fixed_size(self, present: int) -> int:
        """The number of Pods where autoscaling does not decide. A paused pool without `replicas` keeps its size."""
        if self.replicas is not None:
            return self.replicas
        return 0 if self.autoscaling is None else present

    def accepts(self, task_type: str) -> bool:
        """Whether any slot of the layout takes tasks of this type."""
        return any(task_type in slot for slot in self.layout)

    @staticmethod
    def parse(pool: dict[str, Any]) -> "PoolSpec":
        """The spec of a SlotPool object. Raises InvalidObject."""
        spec = Fields(pool, "").child("spec")
        layout = _layout(spec)
        autoscaling = spec.optional_child("autoscaling")
        template = spec.child("template")
        template.child("spec")
        reservation = spec.optional_child("reservation") or Fields({}, spec.at("reservation"))
        policies = tuple(DeletionPolicy)
        return PoolSpec(
            replicas=spec.optional_integer("replicas", most=MAX_REPLICAS),
            autoscaling=parse_autoscaling(autoscaling, {name for slot in layout for name in slot})
            if autoscaling
            else None,
            layout=layout,
            reservation_ttl_seconds=reservation.integer("ttlSeconds", 86400, least=1, most=MAX_RESERVATION_SECONDS),
            output=_output(spec),
            deletion_policy=DeletionPolicy(spec.choice("deletionPolicy", DeletionPolicy.DRAIN, policies)),
            auth=_auth(spec, pool),
            update=_update(spec),
            revision_history_limit=spec.integer("revisionHistoryLimit", 5, most=MAX_REVISIONS),
            mode=Mode(spec.choice("mode", Mode.PODS, tuple(Mode))),
            template=template.data,
        )


def _layout(spec: Fields) -> Layout:
    if not spec.has("slots"):
        return DEFAULT_LAYOUT
    layout = tuple(_accepts(slot) for slot in spec.children("slots"))
    if not 1 <= len(layout) <= MAX_SLOTS:
        raise spec.fail("slots", f"must have 1 to {MAX_SLOTS} slots")
    return layout


def _accepts(slot: Fields) -> tuple[str, ...]:
    types = slot.texts("accepts", most=MAX_TYPES_OF_SLOT)
    if not types:
        raise slot.fail("accepts", "must name a task type")
    if not all(TASK_TYPE.fullmatch(name) for name in types):
        raise slot.fail("accepts", "a task type has 1 to 63 letters, digits, '.', '_' and '-'")
    if len(set(types)) < len(types):
        raise slot.fail("accepts", "names a task type twice")
    return types


def _output(spec: Fields) -> OutputLimits:
    given = spec.optional_child("output") or Fields({}, spec.at("output"))
    least, most = OUTPUT_BYTES
    return OutputLimits(
        max_bytes=given.integer("maxBytes", 262144, least=least, most=most),
        waiting_max_bytes=given.integer("waitingMaxBytes", 921600, least=least, most=most),
    )


def _update(spec: Fields) -> UpdateStrategy:
    given = spec.optional_child("updateStrategy") or Fields({}, spec.at("updateStrategy"))
    return UpdateStrategy(
        type=UpdateType(given.choice("type", UpdateType.WHEN_IDLE, tuple(UpdateType))),
        max_unavailable=given.integer("maxUnavailable", 1, least=1, most=MAX_REPLICAS),
        max_surge=given.integer("maxSurge", 1, most=MAX_REPLICAS),
        paused=given.boolean("paused"),
    )


def _auth(spec: Fields, pool: dict[str, Any]) -> Auth:
    given = spec.optional_child("auth") or Fields({}, spec.at("auth"))
    tls = given.optional_child("tls")
    least, most = ROTATION_SECONDS
    return Auth(
        lock_reads=given.boolean("lockReads"),
        rotation_period_seconds=given.integer("rotationPeriodSeconds", 30 * 86400, least=least, most=most),
        tls=_tls(tls, pool) if tls else None,
    )


def _tls(given: Fields, pool: dict[str, Any]) -> Tls:
    client = given.optional_child("clientAuth")
    owner = pool.get("metadata") or {}
    default = agent_server_name(str(owner.get("namespace")), str(owner.get("name")))
    return Tls(
        secret=_dns_name(given, "secretName"),
        server_name=_dns_name(given, "serverName") if given.has("serverName") else default,
        client_secret=_dns_name(client, "secretName") if client else None,
    )


def _dns_name(given: Fields, name: str) -> str:
    text = given.text(name)
    if len(text) > MAX_NAME_LENGTH or not _DNS_NAME.fullmatch(text):
        raise given.fail(name, f"a name has 1 to {MAX_NAME_LENGTH} lower case letters, digits, '-' and '.'")
    return text
