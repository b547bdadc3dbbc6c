"""The Pod that is made of a user's template: what is put around it, what stays, and what is refused with its reason."""

import copy
import itertools
import json
from typing import Any

import pytest

from agent.config import from_environ as agent_settings
from agent.worker.config import from_environ as worker_settings
from controller.agents.tls import PodTls, pod_tls
from controller.errors import InvalidObject
from controller.kube.trimming import trim_pod
from controller.local.apiserver.store.pod_validation import spec_causes
from controller.local.apiserver.store.pods import default_spec
from controller.local.node.pods.environment import PathRewriter
from controller.names import SAFE_TO_EVICT
from controller.objects.pool import DEFAULT_GRACE_SECONDS, Auth, PoolSpec, Tls
from controller.objects.template import TokenSecret, build_pod
from tests.support.refused_templates import REFUSED

Json = dict[str, Any]

WORKER: Json = {
    "name": "worker",
    "image": "terraform:1",
    "env": [{"name": "TF_LOG", "value": "info"}],
    "resources": {"limits": {"memory": "1Gi"}},
    "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
}


def template(**spec: Any) -> Json:
    return {"spec": {"containers": [copy.deepcopy(WORKER)], "volumes": [{"name": "cache", "emptyDir": {}}], **spec}}


TOKENS = TokenSecret(name="podslots-tokens-terraform", uid="secret-uid")


def build(given: Json, **fields: Any) -> Json:
    spec = PoolSpec(template=given, **fields)
    owner = {"metadata": {"namespace": "ns", "name": "terraform", "uid": "pool-uid"}}
    return build_pod(owner, spec, name="terraform-x", token_secret=TOKENS, agent_image="agent:2")


def defaulted(spec: Json) -> Json:
    """A Pod's spec as an API server stores it."""
    result = copy.deepcopy(spec)
    default_spec(result)
    return result


def container(pod: Json, name: str) -> Json:
    spec = pod["spec"]
    found: Json = next(item for item in [*spec["initContainers"], *spec["containers"]] if item["name"] == name)
    return found


def environment(given: Json) -> dict[str, str]:
    """The variables as a kubelet resolves them."""
    downward = {"metadata.name": "p", "metadata.uid": "u", "metadata.namespace": "ns", "status.podIP": "10.0.0.7"}
    result: dict[str, str] = {}
    for item in given["env"]:
        value = item["value"] if "value" in item else downward[item["valueFrom"]["fieldRef"]["fieldPath"]]
        result[item["name"]] = value.replace("$(PODSLOTS_POD_IP)", result.get("PODSLOTS_POD_IP", ""))
    return result


def test_one_worker_for_each_slot_and_the_agent_before_them() -> None:
    pod = build(template(initContainers=[{"name": "prepare", "image": "i"}]))
    assert [item["name"] for item in pod["spec"]["initContainers"]] == ["slot-agent", "slot-agent-install", "prepare"]
    assert [item["name"] for item in pod["spec"]["containers"]] == ["worker-0", "worker-1", "worker-2"]
    assert container(pod, "slot-agent")["restartPolicy"] == "Always"
    one = build(template(), layout=(("a",),))
    assert [item["name"] for item in one["spec"]["containers"]] == ["worker-0"]


def test_it_belongs_to_its_pool() -> None:
    given = {"labels": {"team": "a"}, "annotations": {"b": "c", SAFE_TO_EVICT: "false"}}
    metadata = build({**template(), "metadata": given})["metadata"]
    assert metadata["labels"] == {
        "team": "a",
        "podslots.dev/pool": "terraform",
        "podslots.dev/state": "starting",
    }
    assert metadata["annotations"].keys() == {"b", "podslots.dev/template-hash", SAFE_TO_EVICT}
    assert metadata["annotations"][SAFE_TO_EVICT] == "true", "nothing runs in it yet"


def test_it_has_its_pool_and_its_token_secret_as_owners() -> None:
    """The second one stays until no Pod is left, so that the garbage collector leaves the Pod alone until then."""
    pool, secret = build(template())["metadata"]["ownerReferences"]
    assert (pool["uid"], pool["controller"], pool["blockOwnerDeletion"]) == ("pool-uid", True, False)
    assert secret == {"apiVersion": "v1", "kind": "Secret", "name": "podslots-tokens-terraform", "uid": "secret-uid"}


NOT_READY, UNREACHABLE = (f"node.kubernetes.io/{taint}" for taint in ("not-ready", "unreachable"))


def unlimited(*keys: str) -> list[Json]:
    return [{"key": key, "operator": "Exists", "effect": "NoExecute"} for key in keys]


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ([], [NOT_READY, UNREACHABLE]),
        ([{"key": "gpu", "operator": "Exists"}], [NOT_READY, UNREACHABLE]),
        ([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoSchedule"}], [NOT_READY, UNREACHABLE]),
        ([{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": 30}], [NOT_READY]),
        ([{"key": NOT_READY, "operator": "Exists", "effect": "NoExecute"}], [UNREACHABLE]),
        ([{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}], []),
        ([{"operator": "Exists"}], []),
    ],
)
def test_a_silent_node_costs_no_pod_unless_the_template_says_so(given: list[Json], added: list[str]) -> None:
    """Without these Kubernetes adds its own, with 300 seconds; with them it adds nothing."""
    spec = build(template(tolerations=given))["spec"]
    assert spec["tolerations"] == [*given, *unlimited(*added)]
    assert defaulted(spec)["tolerations"] == spec["tolerations"]


def test_every_container_of_ours_passes_a_quota_on_limits() -> None:
    for given in (template(), SIDECAR):
        for item in build(given)["spec"]["initContainers"]:
            for kind in ("requests", "limits"):
                assert item["resources"][kind].keys() == {"cpu", "memory"}, item["name"]


def test_the_agent_understands_what_it_is_told() -> None:
    settings = agent_settings(environment(container(build(template()), "slot-agent")))
    assert (settings.pod, settings.pod_uid, settings.pool) == ("p", "u", "terraform")
    assert settings.layout == (("plan", "apply", "plan_and_apply"), ("plan",), ("plan",))
    assert settings.grace_seconds == DEFAULT_GRACE_SECONDS
    assert settings.workers
    assert settings.addresses[0] == "10.0.0.7"


def test_the_workers_understand_what_they_are_told() -> None:
    for slot in range(3):
        settings = worker_settings(environment(container(build(template()), f"worker-{slot}")))
        assert (settings.host, settings.port, settings.slot) == ("10.0.0.7", 8721, slot)
        assert settings.grace_seconds == DEFAULT_GRACE_SECONDS


def mounts(given: Json) -> dict[str, tuple[str, str, bool]]:
    return {
        mount["mountPath"]: (mount["name"], mount.get("subPath", ""), mount.get("readOnly", False))
        for mount in given["volumeMounts"]
    }


def test_each_slot_sees_its_own_folders_only() -> None:
    """And no worker the pool's tokens or the journal."""
    pod = build(template())
    for slot in range(3):
        assert mounts(container(pod, f"worker-{slot}")) == {
            "/podslots/bin": ("podslots-bin", "", True),
            "/podslots/credential": ("podslots-credentials", str(slot), True),
            "/podslots/work": (f"podslots-work-{slot}", "", False),
            "/cache": ("cache", "", False),
        }
    secrets = {volume["name"]: volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume}
    assert secrets == {"podslots-tokens": {"secretName": "podslots-tokens-terraform", "defaultMode": 0o440}}
    users = [
        item["name"]
        for item in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
        for mount in item.get("volumeMounts", ())
        if mount["name"] in ("podslots-tokens", "podslots-state")
    ]
    assert set(users) == {"slot-agent"}


def test_every_mount_has_its_volume() -> None:
    for given, auth in itertools.product((template(), SIDECAR), (Auth(), SECURED)):
        spec = build(given, auth=auth)["spec"]
        volumes = [volume["name"] for volume in spec["volumes"]]
        assert len(set(volumes)) == len(volumes)
        for item in [*spec["initContainers"], *spec["containers"]]:
            assert {mount["name"] for mount in item.get("volumeMounts", ())} <= set(volumes)


def test_every_path_is_told_and_lies_in_a_mount() -> None:
    """A kubelet without mount namespaces replaces mount paths in variables and commands, and nowhere else."""
    for given, auth in itertools.product((template(), SIDECAR), (Auth(), SECURED)):
        spec = build(given, auth=auth)["spec"]
        for item in [*spec["initContainers"], *spec["containers"]]:
            own = [mount["mountPath"] for mount in item["volumeMounts"] if mount["mountPath"].startswith("/podslots")]
            rewriter = PathRewriter({path: f"/host{number}" for number, path in enumerate(own)})
            texts = [*(entry.get("value", "") for entry in item.get("env", ())), *item.get("command", ())]
            for text in texts:
                assert "/podslots" not in rewriter.text(text), text


def test_the_users_worker_is_kept_as_it_is() -> None:
    worker = container(build(template()), "worker-1")
    assert worker["image"] == "terraform:1"
    assert worker["resources"] == {"limits": {"memory": "1Gi"}}
    assert {"name": "TF_LOG", "value": "info"} in worker["env"]
    assert worker["command"] == ["/podslots/bin/slot-agent", "work"]


def test_other_containers_are_left_alone() -> None:
    other = {"name": "proxy", "image": "i", "livenessProbe": {"httpGet": {"path": "/", "port": 80}}}
    assert container(build(template(containers=[WORKER, other])), "proxy") == other


def test_the_template_is_not_changed() -> None:
    given = template(initContainers=[{"name": "slot-agent", "resources": {"limits": {"cpu": "1"}}}])
    before = copy.deepcopy(given)
    build(given)["spec"]["containers"][0]["env"].clear()
    assert given == before


def test_an_entry_for_the_agent_overrides_resources_and_image() -> None:
    override = {"name": "slot-agent", "image": "mirror/agent:2", "resources": {"limits": {"memory": "1Gi"}}}
    pod = build(template(initContainers=[{"name": "a", "image": "i"}, override]))
    agent = container(pod, "slot-agent")
    assert (agent["image"], agent["resources"]) == ("mirror/agent:2", {"limits": {"memory": "1Gi"}})
    assert agent["command"] == ["slot-agent", "serve"]
    assert container(pod, "slot-agent-install")["image"] == "mirror/agent:2"
    assert [item["name"] for item in pod["spec"]["initContainers"]] == ["slot-agent", "slot-agent-install", "a"]


def test_an_entry_for_install_overrides_its_resources() -> None:
    resources = {"requests": {"memory": "1Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
    pod = build(template(initContainers=[{"name": "slot-agent-install", "resources": resources}]))
    install = container(pod, "slot-agent-install")
    assert (install["image"], install["resources"]) == ("agent:2", resources)
    assert container(pod, "slot-agent")["resources"] != resources
    assert [item["name"] for item in pod["spec"]["initContainers"]] == ["slot-agent", "slot-agent-install"]
    sidecar = {"spec": {**SIDECAR["spec"], "initContainers": [{"name": "slot-agent-install", "resources": resources}]}}
    assert [item["name"] for item in build(sidecar)["spec"]["initContainers"]] == ["slot-agent"]


def test_the_agent_is_probed_and_told_before_the_pod_stops() -> None:
    agent = container(build(template()), "slot-agent")
    for probe, path in (("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        assert agent[probe]["httpGet"] == {"path": path, "port": 8721}
    assert agent["startupProbe"]["periodSeconds"] == 1
    assert agent["lifecycle"] == {"preStop": {"exec": {"command": ["slot-agent", "close"]}}}


def test_no_worker_is_probed() -> None:
    for slot in range(3):
        assert not [key for key in container(build(template()), f"worker-{slot}") if "Probe" in key]


def test_hardening_by_default() -> None:
    pod = build(template())
    spec = pod["spec"]
    assert spec["securityContext"] == {
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
        "runAsNonRoot": True,
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["restartPolicy"] == "Always"
    for name in ("slot-agent", "slot-agent-install", "worker-0"):
        security = container(pod, name)["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_what_the_user_says_of_security_stays() -> None:
    own = {**WORKER, "securityContext": {"runAsUser": 0, "capabilities": {"add": ["SYS_ADMIN"]}}}
    pod = build(
        template(
            containers=[own],
            securityContext={"fsGroup": 7, "runAsUser": 1000},
            automountServiceAccountToken=True,
            terminationGracePeriodSeconds=30,
            nodeSelector={"a": "b"},
        )
    )
    spec = pod["spec"]
    assert (spec["securityContext"]["fsGroup"], spec["securityContext"]["runAsUser"]) == (7, 1000)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is True
    assert spec["terminationGracePeriodSeconds"] == 30
    assert spec["nodeSelector"] == {"a": "b"}
    worker = container(pod, "worker-0")["securityContext"]
    assert worker["runAsUser"] == 0
    assert worker["runAsNonRoot"] is False
    assert worker["capabilities"] == {"add": ["SYS_ADMIN"]}
    assert container(pod, "slot-agent")["securityContext"]["runAsUser"] == 65532
    assert environment(container(pod, "worker-0"))["PODSLOTS_GRACE_SECONDS"] == "30"


def test_the_worker_learns_where_its_secrets_are() -> None:
    volumes = [
        {"name": "aws", "secret": {"secretName": "aws-keys"}},
        {"name": "settings", "configMap": {"name": "tf-settings"}},
        {"name": "renamed", "secret": {"secretName": "other", "items": [{"key": "a", "path": "b"}]}},
        {"name": "part", "secret": {"secretName": "part"}},
    ]
    mounted = [
        {"name": "aws", "mountPath": "/secrets/aws/"},
        {"name": "settings", "mountPath": "/settings"},
        {"name": "renamed", "mountPath": "/renamed"},
        {"name": "part", "mountPath": "/part", "subPath": "x"},
    ]
    pod = build(template(containers=[{**WORKER, "volumeMounts": mounted}], volumes=volumes))
    settings = worker_settings(environment(container(pod, "worker-2")))
    assert settings.secrets == {"aws-keys": "/secrets/aws"}
    assert settings.config_maps == {"tf-settings": "/settings"}


SIDECAR: Json = {"spec": {"containers": [{"name": "runner", "image": "i"}, {"name": "helper", "image": "i"}]}}


def test_the_worker_learns_which_of_its_variables_are_secret() -> None:
    given = template()
    variables = given["spec"]["containers"][0]["env"]
    for name, kind in (("TOKEN", "secretKeyRef"), ("REGION", "configMapKeyRef"), ("KEY", "secretKeyRef")):
        variables.append({"name": name, "valueFrom": {kind: {"name": "x", "key": "k"}}})
    assert {"name": "PODSLOTS_SECRET_VARIABLES", "value": "TOKEN,KEY"} in container(build(given), "worker-0")["env"]
    assert "PODSLOTS_SECRET_VARIABLES" not in json.dumps(build(template()))


def test_what_the_worker_has_from_whole_secrets_it_has_again_under_hidden_names() -> None:
    """Else it could not mask them: nobody but the node knows which variables a Secret gives."""
    given = template()
    env_from = [
        {"configMapRef": {"name": "settings"}},
        {"prefix": "AWS_", "secretRef": {"name": "aws", "optional": True}},
        {"secretRef": {"name": "git"}},
    ]
    given["spec"]["containers"][0]["envFrom"] = env_from
    for slot in range(2):
        assert container(build(given), f"worker-{slot}")["envFrom"] == [
            *env_from,
            {"prefix": "PODSLOTS_CREDENTIAL_FROM_SECRET_1_", "secretRef": {"name": "aws", "optional": True}},
            {"prefix": "PODSLOTS_CREDENTIAL_FROM_SECRET_2_", "secretRef": {"name": "git"}},
        ]
    assert "envFrom" not in container(build(template()), "worker-0")


def test_without_a_worker_the_workload_gets_the_local_credential() -> None:
    """Sidecar mode: it calls the agent itself, with what can't drain."""
    pod = build(SIDECAR)
    assert [item["name"] for item in pod["spec"]["initContainers"]] == ["slot-agent"]
    assert agent_settings(environment(container(pod, "slot-agent"))).workers is False
    for name in ("runner", "helper"):
        given = container(pod, name)
        assert mounts(given) == {"/podslots/credential": ("podslots-credentials", "local", True)}
        assert environment(given)["PODSLOTS_URL"] == "http://10.0.0.7:8721"
        assert "command" not in given


SECURED = Auth(lock_reads=True, tls=Tls(secret="agents", server_name="a.example.com", client_secret="controllers"))


def test_an_agent_that_speaks_tls_gets_its_files_and_nobody_elses() -> None:
    """Of the controller's own Secret the CA alone, and no `ca.crt` of the agents': that would ask for certificates."""
    pod = build(template(), auth=SECURED)
    settings = agent_settings(environment(container(pod, "slot-agent")))
    assert settings.lock_reads
    (path,) = [path for path, (name, *_) in mounts(container(pod, "slot-agent")).items() if name == "podslots-tls"]
    assert str(settings.tls_dir) == path
    (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "podslots-tls"]
    given = {
        source["secret"]["name"]: [item["key"] for item in source["secret"]["items"]]
        for source in volume["projected"]["sources"]
    }
    assert given == {"agents": ["tls.crt", "tls.key"], "controllers": ["ca.crt"]}
    for slot in range(3):
        worker = container(pod, f"worker-{slot}")
        assert worker_settings(environment(worker)).tls
        assert "podslots-tls" not in {mount["name"] for mount in worker["volumeMounts"]}
    agent = container(pod, "slot-agent")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert agent[probe]["httpGet"]["scheme"] == "HTTPS"
    sidecar = environment(container(build(SIDECAR, auth=SECURED), "runner"))
    assert sidecar["PODSLOTS_URL"] == "https://10.0.0.7:8721"
    assert sidecar["PODSLOTS_TLS_SERVER_NAME"] == "a.example.com"


@pytest.mark.parametrize("clients", [None, "controllers"])
def test_how_an_agent_is_spoken_to_is_read_off_its_pod(clients: str | None) -> None:
    """Of what the cache keeps of it, too; and a pool that changes its mind changes no Pod."""
    pod = build(template(), auth=Auth(tls=Tls(secret="s", server_name="a.example.com", client_secret=clients)))
    assert pod_tls(pod) == pod_tls(trim_pod(pod)) == PodTls("s", "a.example.com", clients)
    plain = build(template())
    assert pod_tls(plain) is None
    assert "volumes" not in trim_pod(plain)["spec"]


def test_without_auth_pods_are_as_they_were() -> None:
    text = json.dumps(build(template()))
    assert "LOCK_READS" not in text
    assert "TLS" not in text


def test_the_hash_changes_with_what_a_pod_is_made_of_and_with_nothing_else() -> None:
    def digest(pod: Json) -> str:
        return str(pod["metadata"]["annotations"]["podslots.dev/template-hash"])

    first = digest(build(template()))
    assert digest(build(template())) == first
    assert digest(build(template(nodeSelector={"a": "b"}))) != first
    assert digest(build(template(), layout=(("plan",),))) != first
    assert digest(build({**template(), "metadata": {"labels": {"a": "b"}}})) != first


def test_an_api_server_takes_it() -> None:
    for given in (template(), SIDECAR):
        for auth in (Auth(), SECURED):
            pod = json.loads(json.dumps(build(given, auth=auth)))
            assert list(spec_causes(pod["spec"])) == []


@pytest.mark.parametrize(("given", "field", "problem"), REFUSED.values(), ids=REFUSED)
def test_refusals(given: Json, field: str, problem: str) -> None:
    """Most of these kill or evict Pods whatever runs in them, asking nobody."""
    with pytest.raises(InvalidObject) as caught:
        build(given)
    assert caught.value.field == field
    assert problem in caught.value.problem
