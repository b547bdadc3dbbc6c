"""Names that podslots puts on Kubernetes objects, and how names are built. People and policies rely on them."""

import hashlib
from collections.abc import Callable
from functools import lru_cache

GROUP = "podslots.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
PREFIX = f"{GROUP}/"
"""Labels and annotations with this prefix are the controller's; a template may not set them."""

# Labels
POOL_LABEL = f"{PREFIX}pool"
STATE_LABEL = f"{PREFIX}state"
LOCK_LABEL = f"{PREFIX}lock"

DEPLOYMENT_LABEL = f"{PREFIX}deployment"
"""On the Pods of a Deployment, and nothing else: its name, which is used once. So no ReplicaSet adopts other Pods."""

OUTPUTS_LABEL = f"{PREFIX}outputs"
"""On a Secret that holds what a task handed over: podslots made it, and may replace it."""

# Annotations of Pods
DRAIN_ID = f"{PREFIX}drain-id"
TEMPLATE_HASH = f"{PREFIX}template-hash"
OPENED = f"{PREFIX}opened"
"""When the controller last opened the Pod: its idle time starts no earlier."""
POOL_UID = f"{PREFIX}pool-uid"
"""On the Pods of a Deployment: the pool that they were made for, which does not own them itself."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
"""By this a ReplicaSet takes drained Pods before others, among those that are ready."""
DRAIN_REQUESTED = f"{PREFIX}drain-requested"
"""Set by people: drain this Pod as it falls idle, and delete it."""
FORGET = f"{PREFIX}forget"
"""Set by people, to the Pod's UID: the Pod is dead, even if its phase says otherwise."""
BREAK_GLASS = f"{PREFIX}break-glass"
"""Set by people, to the reason: the policies let this Pod be deleted, even if it has work."""
SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"

EVICTION_RESPONDER = f"{PREFIX}slots"
"""The controller's name in a Pod's `spec.evictionResponders`: it is asked before the Pod is evicted."""
EVICTION_PRIORITY = 10_000
"""What Kubernetes has the controller of a Pod set, so that others can come before or after it."""

# Annotations of tasks
RETRY_OF = f"{PREFIX}retry-of"
"""The ended task that this one runs anew."""

# Annotations of Secrets and Leases
OUTPUTS_TASK = f"{PREFIX}outputs-of"
CURRENT_TOKEN = f"{PREFIX}current-token"
TOKEN_SINCE = f"{PREFIX}current-token-since"
"""When the current token came into use. A rotation goes by this, never by the Secret's own age."""
NEXT_TOKEN = f"{PREFIX}next-token"
NEXT_TOKEN_SINCE = f"{PREFIX}next-token-since"
PREVIOUS_TOKEN = f"{PREFIX}previous-token"
ROTATION_REQUESTED = f"{PREFIX}rotation-requested"
"""On a pool: rotate its tokens once. Any new text is a new request; its token Secret carries the one last answered."""
LOCK_KEY = f"{PREFIX}lock-key"
LOCK_TASK = f"{PREFIX}task"

# Finalizers
POOL_FINALIZER = f"{PREFIX}drain"
TASK_FINALIZER = f"{PREFIX}task"
POD_FINALIZER = f"{PREFIX}pod-tracking"
"""On a Pod from its opening until its end is recorded, as Jobs' Pods have one: it keeps the evidence, not the work."""
TOKENS_FINALIZER = f"{PREFIX}tokens"

# Containers and volumes of a Pod
AGENT_CONTAINER = "slot-agent"
INSTALL_CONTAINER = "slot-agent-install"
WORKER_CONTAINER = "worker"
VOLUME_PREFIX = "podslots-"
TLS_VOLUME = f"{VOLUME_PREFIX}tls"
TLS_SERVER_NAME = "PODSLOTS_TLS_SERVER_NAME"
"""Variable of a Pod with TLS: the name in the agent's certificate."""
MOUNT_ROOT = "/podslots"

CLUSTER_MANAGER = "system:kube-controller-manager"
DEPLOYMENT_CONTROLLER = "system:serviceaccount:kube-system:deployment-controller"
REPLICASET_CONTROLLER = "system:serviceaccount:kube-system:replicaset-controller"
"""Kubernetes' own, by the account that each has; or all are one, where they run without accounts of their own."""

LEADER_LEASE = "podslots-controller"
CONTROLLER_NAMESPACE = "podslots-system"
CONTROLLER_ACCOUNT = "podslots-controller"
CONTROLLER_USER = f"system:serviceaccount:{CONTROLLER_NAMESPACE}:{CONTROLLER_ACCOUNT}"
"""Whom the admission policies let change what is the controller's alone."""
CONTROLLER_VERSION = f"{PREFIX}version"
"""Annotation of the leader's Lease: which version leads, for `podslots version`."""
TASK_ID_SEPARATOR = "."

OUT_OF_SERVICE_TAINT = "node.kubernetes.io/out-of-service"

SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' own: no vowels, so that no words appear; no look-alikes."""
SUFFIX_LENGTH = 10
"""27^10 names: a thousand at once collide with a probability of 2.4e-9, and a collision is a 409, not a wrong Pod."""
_POOL_PART = 63 - 1 - SUFFIX_LENGTH


def worker_container(slot: int) -> str:
    """The container that works slot `slot`."""
    return f"{WORKER_CONTAINER}-{slot}"


_TOKENS, _HOLDER = "podslots-tokens-", "podslots-holder-"
SECRET_PREFIXES = (_TOKENS, _HOLDER)
"""What the names of pools' own Secrets begin with. A pool adopts one that is there, so no task may write it."""


def token_secret(pool: str) -> str:
    """The Secret that holds the pool's tokens."""
    return f"{_TOKENS}{pool}"


def holder_secret(pool: str) -> str:
    """The empty Secret that owns the pool's Pods while the one with the tokens is made again."""
    return f"{_HOLDER}{pool}"


def disruption_budget(pool: str) -> str:
    """The PodDisruptionBudget over the pool's active Pods."""
    return f"podslots-{pool}"


def agent_server_name(namespace: str, pool: str) -> str:
    """The name in the certificate of a pool's agents, where the pool names none. No Service need have it."""
    return f"{pool}.{namespace}.svc"


@lru_cache(maxsize=2**16)
def lock_lease(lock_key: str) -> str:
    """The Lease for `lockKey`. A lockKey may have any characters, so the name has its digest."""
    return f"podslots-lock-{hashlib.sha256(lock_key.encode()).hexdigest()[:32]}"


def pod_name(pool: str, choice: Callable[[str], str]) -> str:
    """A new Pod's name. `choice` picks one character of a text, as `random.Random.choice` does.

    A Pod's name is its host name: at most 63 characters, and no dots.
    """
    suffix = "".join(choice(SUFFIX_ALPHABET) for _ in range(SUFFIX_LENGTH))
    return _pod_prefix(pool) + suffix


def pods_pattern(pool: str) -> str:
    """A regular expression that the names of a pool's Pods match, and few others."""
    return f"{_pod_prefix(pool)}[a-z0-9]{{{SUFFIX_LENGTH}}}"


def _pod_prefix(pool: str) -> str:
    return f"{pool.replace('.', '-')[:_POOL_PART].rstrip('-')}-"


def task_id(uid: str, attempt: int) -> str:
    """What agents know a task by: the SlotTask's UID and the attempt."""
    return f"{uid}{TASK_ID_SEPARATOR}{attempt}"


def split_task_id(text: str) -> tuple[str, int] | None:
    """UID and attempt of a task id; None if the controller did not make it."""
    uid, separator, attempt = text.rpartition(TASK_ID_SEPARATOR)
    if not separator or not uid or not attempt.isascii() or not attempt.isdecimal():
        return None
    return uid, int(attempt)
