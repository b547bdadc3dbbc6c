"""Environment, command line and mount paths of a container."""

from typing import Any

import pytest

from controller.local.node.pods.environment import (
    ConfigError,
    PathRewriter,
    PodFacts,
    Resolved,
    Sources,
    command_line,
    expand,
    field,
    resolve,
    resource,
)
from controller.local.node.pods.pod_spec import ContainerSpec, Role

POD = {
    "metadata": {
        "name": "p",
        "namespace": "ns",
        "uid": "u-1",
        "labels": {"app": "x", "a/b": 'say "hi"'},
        "annotations": {"note": "two\nlines"},
    },
    "spec": {},
}
FACTS = PodFacts(POD, "127.9.9.2", "127.9.9.1", "local", {"memory": "4Gi", "cpu": "2"})
SECRETS = {"tok": {"token": "abc", "path": "/work/x"}}
MAPS = {"conf": {"LEVEL": "debug", "DIR": "/work/conf"}}
SOURCES = Sources(FACTS, MAPS.get, SECRETS.get)


def container(**fields: Any) -> ContainerSpec:
    return ContainerSpec("c", Role.MAIN, **fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$(NO)", "$(NO)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A}", "$A ${A}"),
        ("100$", "100$"),
    ],
)
def test_references_expand_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/work", "/host/w"),
        ("/work/", "/host/w/"),
        ("/work/a/b", "/host/w/a/b"),
        ("--dir=/work/a", "--dir=/host/w/a"),
        ("/bin:/work/bin:/work", "/bin:/host/w/bin:/host/w"),
        ("/work/deep/x", "/host/d/x"),
        ("/work/deeper", "/host/w/deeper"),
        ("/workspace", "/workspace"),
        ("/home/work", "/home/work"),
        ("/mnt/work/x", "/mnt/work/x"),
        ("http://host/work", "http://host/work"),
        ("file:///work/x", "file:///host/w/x"),
        ("cat /work/a '/work/b'", "cat /host/w/a '/host/w/b'"),
        ("work", "work"),
        ("./work", "./work"),
    ],
)
def test_mount_paths_are_replaced_by_whole_segments_longest_first(text: str, expected: str) -> None:
    assert PathRewriter({"/work": "/host/w", "/work/deep/": "/host/d"}).text(text) == expected


def test_a_replaced_path_is_not_looked_at_again() -> None:
    rewriter = PathRewriter({"/a": "/b/x", "/b": "/c"})
    assert rewriter.text("/a /b") == "/b/x /c"


def test_a_volume_at_the_root_is_refused() -> None:
    with pytest.raises(ConfigError):
        PathRewriter({"/": "/host"})


def test_variables_come_from_values_secrets_config_maps_and_fields_later_ones_winning() -> None:
    spec = container(
        env_from=({"configMapRef": {"name": "conf"}}, {"prefix": "S_", "secretRef": {"name": "tok"}}),
        env=(
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "LEVEL", "value": "info $(POD) $(BASE) $(LATER)"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "tok", "key": "token"}}},
            {"name": "LATER", "value": "x"},
            {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k", "optional": True}}},
        ),
    )
    resolved = resolve(spec, {"BASE": "b"}, SOURCES)
    assert resolved.variables == {
        "BASE": "b",
        "LEVEL": "info p b $(LATER)",
        "DIR": "/work/conf",
        "S_token": "abc",
        "S_path": "/work/x",
        "POD": "p",
        "TOKEN": "abc",
        "LATER": "x",
    }
    assert resolved.secrets == {"S_token", "S_path", "TOKEN"}


def test_paths_in_secret_values_are_left_alone() -> None:
    resolved = Resolved({"A": "/work/x", "B": "/work/x"}, frozenset({"B"}))
    assert PathRewriter({"/work": "/w"}).environment(resolved) == {"A": "/w/x", "B": "/work/x"}


@pytest.mark.parametrize(
    "reference",
    [
        {"secretKeyRef": {"name": "no", "key": "k"}},
        {"secretKeyRef": {"name": "tok", "key": "no"}},
        {"configMapKeyRef": {"name": "no", "key": "k"}},
        {"fieldRef": {"fieldPath": "spec.unknown"}},
    ],
)
def test_a_missing_reference_is_a_config_error(reference: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(container(env=({"name": "X", "valueFrom": reference},)), {}, SOURCES)
    assert caught.value.reason == "CreateContainerConfigError"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "x"),
        ("metadata.labels['gone']", ""),
        ("metadata.annotations['note']", "two\nlines"),
        ("spec.nodeName", "local"),
        ("status.podIP", "127.9.9.2"),
        ("status.hostIP", "127.9.9.1"),
        ("metadata.labels", 'a/b="say \\"hi\\""\napp="x"\n'),
    ],
)
def test_field_references(path: str, value: str) -> None:
    assert field(path, FACTS) == value


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ({"resource": "limits.memory"}, str(2**29)),
        ({"resource": "limits.memory", "divisor": "1Mi"}, "512"),
        ({"resource": "requests.cpu"}, "1"),
        ({"resource": "requests.cpu", "divisor": "1m"}, "250"),
        ({"resource": "limits.cpu"}, "2"),
    ],
)
def test_resource_references(reference: dict[str, Any], value: str) -> None:
    resources = {"limits": {"memory": "512Mi"}, "requests": {"cpu": "250m"}}
    assert resource(reference, resources, FACTS) == value


def test_the_command_line_is_command_and_arguments_expanded() -> None:
    spec = container(command=("run", "$(A)"), args=("--x=$(A)",))
    assert command_line(spec, (), {"A": "1"}) == ["run", "1", "--x=1"]


def test_without_a_command_the_images_configured_one_is_taken() -> None:
    assert command_line(container(args=("serve",)), ("slot-agent",), {}) == ["slot-agent", "serve"]
    with pytest.raises(ConfigError) as caught:
        command_line(container(image="x:1"), (), {})
    assert caught.value.reason == "CreateContainerError"
    assert '"x:1"' in caught.value.message
