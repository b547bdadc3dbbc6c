"""Kubeconfigs are read as kubectl reads them, and what is wrong with one is said in a line."""

import base64
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.errors import NoConfiguration
from controller.kube.access import FILE_REFRESH_SECONDS, Access, KubeSettings, load

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def config(path: Path, name: str, user: dict[str, Any] | None = None, **cluster: Any) -> Path:
    """A kubeconfig with one context, cluster and user of that name."""
    document = {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": f"ns-{name}"}}],
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}:6443/", **cluster}}],
        "users": [{"name": name, "user": user or {}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def read(*paths: Path, context: str | None = None) -> Access:
    return load(KubeSettings(kubeconfig=":".join(map(str, paths)), context=context), NOW)


def test_the_first_file_that_has_a_name_or_a_current_context_wins(tmp_path: Path) -> None:
    first, second = config(tmp_path / "1", "a", {"token": "1"}), config(tmp_path / "2", "b", {"token": "2"})
    third = config(tmp_path / "3", "a", {"token": "3"})
    found = read(tmp_path / "none", first, second, third)
    assert (found.server, found.namespace, found.authorization) == ("https://a:6443", "ns-a", "Bearer 1")
    assert read(first, second, context="b").authorization == "Bearer 2"
    assert read(third, first).authorization == "Bearer 3"


def test_paths_are_relative_to_the_file_that_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(f"of {name}\n")
    first = config(tmp_path / "a" / "config", "a", {"tokenFile": "token", "token": "not this"})
    second = config(tmp_path / "b" / "config", "b", {"tokenFile": "token"})
    monkeypatch.chdir(tmp_path)
    assert read(first, second).authorization == "Bearer of a"
    assert read(Path("a/config"), Path("b/config"), context="b").authorization == "Bearer of b"
    assert read(first).refresh_after_seconds == FILE_REFRESH_SECONDS


def test_what_else_a_cluster_and_a_user_can_say(tmp_path: Path) -> None:
    path = config(
        tmp_path / "c",
        "a",
        {"username": "u", "password": "p", "as": "anna"},
        **{"proxy-url": "http://proxy:3128", "tls-server-name": "kubernetes", "insecure-skip-tls-verify": True},
    )
    found = read(path)
    assert found.authorization == f"Basic {base64.b64encode(b'u:p').decode()}"
    assert (found.proxy, found.tls_server_name) == ("http://proxy:3128", "kubernetes")
    assert found.headers == {"Impersonate-User": "anna"}
    assert found.tls is not None
    assert not found.tls.check_hostname


def test_certificates_come_from_files_or_data_and_a_plugins_token_ends(tmp_path: Path) -> None:
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "crt"), "-days", "2", "-subj", "/CN=kube")
    subprocess.run([*made, *files], check=True, capture_output=True)
    data = base64.b64encode((tmp_path / "crt").read_bytes()).decode()
    user = {"client-certificate": "crt", "client-key": "key"}
    found = read(config(tmp_path / "c", "a", user, **{"certificate-authority-data": data}))
    assert found.tls is not None
    assert [entry["subject"] for entry in found.tls.get_ca_certs()] == [((("commonName", "kube"),),)]
    assert found.refresh_after_seconds is None


def plugin(folder: Path, answer: object, **extra: Any) -> dict[str, Any]:
    """A user whose plugin prints this, and writes what it was told to `told`."""
    program = folder / "plugin"
    text = json.dumps(answer) if not isinstance(answer, str) else answer
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"open({str(folder / 'told')!r}, 'w').write(os.environ['KUBERNETES_EXEC_INFO'])\n"
        f"print({text!r}); print(sys.argv[1:], os.environ.get('WHO'), file=sys.stderr)\n"
    )
    program.chmod(0o755)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", **extra}}


EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "command": "true"}


def answer(**status: str) -> dict[str, object]:
    return {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}


def test_a_plugin_is_told_of_its_cluster_and_its_tokens_end_is_minded(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = answer(token="t", expirationTimestamp="2026-03-01T12:10:00Z")
    extra = {"args": ["get", "token"], "env": [{"name": "WHO", "value": "me"}], "provideClusterInfo": True}
    found = read(config(tmp_path / "c", "a", plugin(tmp_path, given, **extra)))
    assert (found.authorization, found.refresh_after_seconds) == ("Bearer t", 540)
    assert capfd.readouterr().err == "['get', 'token'] me\n"
    told = json.loads((tmp_path / "told").read_text())
    assert told["spec"] == {"interactive": False, "cluster": {"server": "https://a:6443/"}}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("no JSON", "did not print an ExecCredential"),
        ({"status": {}}, "did not print an ExecCredential"),
        (answer(), "gave neither a token nor a certificate"),
        ({**answer(token="t"), "apiVersion": "client.authentication.k8s.io/v1beta1"}, "answers in"),
        (answer(token="t", expirationTimestamp="2026-03-01T12:10:00"), "did not print an ExecCredential"),
        ({**answer(), "status": {"token": 7}}, "did not print an ExecCredential"),
        ({**answer(), "status": {"clientCertificateData": 7, "clientKeyData": 7}}, "did not print an ExecCredential"),
        (answer(token="a\nb"), "line break"),
        (answer(token="\ud800"), "no text"),
    ],
)
def test_what_a_plugin_does_wrong_is_said(tmp_path: Path, given: object, problem: str) -> None:
    with pytest.raises(NoConfiguration, match=problem):
        read(config(tmp_path / "c", "a", plugin(tmp_path, given)))


def test_a_plugin_that_is_not_there_is_said_with_how_to_get_it(tmp_path: Path) -> None:
    user = plugin(tmp_path, "", command="no-such-plugin", installHint="get it from the shop")
    with pytest.raises(NoConfiguration, match=r"no-such-plugin can't be run: No such file or directory\nget it from"):
        read(config(tmp_path / "c", "a", user))
    with pytest.raises(NoConfiguration, match="there is no terminal"):
        read(config(tmp_path / "c", "a", plugin(tmp_path, "", interactiveMode="Always")))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("just words", "a kubeconfig is a mapping; this is text"),
        ("- a", "a kubeconfig is a mapping; this is a list"),
        ("{", "line 2: not YAML"),
        ("", "no current context"),
        ("current-context: x", "no context 'x'; it has: none"),
        ("contexts: {}\ncurrent-context: x", "contexts is a mapping, not a list"),
        ("contexts: [x]", "each of contexts is a mapping with a name"),
        ("contexts: [{name: x, context: y}]", "the context 'x' is text, not a mapping"),
        ("{contexts: [{name: x, context: {}}], current-context: x}", "names no cluster"),
        ("{contexts: [{name: x, context: {cluster: k}}], current-context: x}", "no cluster 'k'"),
    ],
)
def test_a_kubeconfig_that_is_none_is_said_in_a_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "c").write_text(text)
    with pytest.raises(NoConfiguration, match=problem) as raised:
        read(tmp_path / "c")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("user", "cluster", "problem"),
    [
        ({"auth-provider": {"name": "unknown"}}, {}, "auth-provider gave no token; known are oidc and gcp"),
        ({"auth-provider": {"name": "oidc", "config": {"id-token": "no.token"}}}, {}, "3 period-delimited parts"),
        ({"token": 7}, {}, "token is int, not text"),
        ({"as-groups": ["x"]}, {}, "only as is known"),
        ({}, {"server": "k8s"}, "has to begin with https://"),
        ({}, {"certificate-authority": "none"}, "none: No such file"),
        ({}, {"certificate-authority-data": "?"}, "certificate-authority-data is not base64"),
        ({"exec": {"apiVersion": "v0"}}, {}, "exec has apiVersion 'v0'"),
        ({"exec": "aws"}, {}, "exec is not a mapping"),
        ({"exec": {**EXEC, "args": "get token"}}, {}, "args is not a list"),
        ({"exec": {**EXEC, "env": {"A": "b"}}}, {}, "env is not a list of mappings"),
        ({"exec": {**EXEC, "env": ["A=b"]}}, {}, "env is not a list of mappings"),
        ({"exec": {**EXEC, "command": "a\0b"}}, {}, "can't be run: embedded null"),
        ({"exec": {**EXEC, "env": [{"name": "A=b", "value": "c"}]}}, {}, "can't be run: illegal environment variable"),
        ({"token": "a\nb"}, {}, "the token has a line break"),
        ({"as": "a\nb"}, {}, "to act as is no name"),
        ({}, {"server": "https://[::1"}, "can't be connected to: it is no URL"),
        ({}, {"server": "https://a:x"}, "can't be connected to: its port is no number"),
        ({}, {"server": "https://a:99999"}, "can't be connected to: its port is no number"),
        ({}, {"server": "https://a b"}, "can't be connected to: it has a space"),
        ({}, {"server": "https://a..b"}, "can't be connected to: 'a..b' is no name"),
        ({}, {"server": "https://" + 300 * "a"}, "is no name of a host"),
        ({}, {"tls-server-name": "a..b"}, "tls-server-name 'a..b' is no name"),
        ({}, {"proxy-url": "http://[::1"}, "proxy-url can't be used: it is no URL"),
        ({}, {"proxy-url": "proxy:x"}, "proxy-url can't be used: its port is no number"),
    ],
)
def test_what_can_not_be_used_is_named(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], problem: str
) -> None:
    with pytest.raises(NoConfiguration, match=problem):
        read(config(tmp_path / "c", "a", user, **cluster))


def test_a_provider_s_token_is_used_and_read_again(tmp_path: Path) -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 4_000_000_000}).encode()).decode().rstrip("=")
    token = f"head.{claims}.signature"
    user = {"auth-provider": {"name": "oidc", "config": {"id-token": token}}}
    found = read(config(tmp_path / "c", "a", user))
    assert (found.server, found.authorization) == ("https://a:6443", f"Bearer {token}")
    assert found.refresh_after_seconds == FILE_REFRESH_SECONDS


def test_nothing_else_loads_kubernetes_asyncio(tmp_path: Path) -> None:
    path = config(tmp_path / "c", "a", {"token": "1"})
    script = (
        "import sys; from datetime import UTC, datetime; from controller.kube.access import KubeSettings, load; "
        f"load(KubeSettings(kubeconfig={str(path)!r}), datetime.now(UTC)); print('kubernetes_asyncio' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "False\n"
