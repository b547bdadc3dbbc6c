"""docs/security.md names the settings that there are, with the defaults that they have."""

import re

from agent.auth import MAX_TOKEN_BYTES
from agent.config import STOP_MARGIN_SECONDS, from_environ
from agent.http.openapi import SECURITY_SCHEMES
from agent.tls import MAX_FILE_BYTES
from controller.agents.tls import OVERLAP_SECONDS, REREAD_SECONDS
from controller.objects.pool import PoolSpec
from tests.support.asked import Asked
from tests.support.repository import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text()
REQUIRED = dict.fromkeys(
    ("PODSLOTS_POD_UID", "PODSLOTS_STATE_DIR", "PODSLOTS_TOKENS_DIR", "PODSLOTS_CREDENTIALS_DIR"), "/somewhere"
)


def rows(heading: str) -> dict[str, str]:
    """The first two columns of a section's table, by each name in the first."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {name: row[1] for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


def test_every_setting_of_the_agent_is_told_with_its_default() -> None:
    environ = Asked(REQUIRED)
    settings = from_environ(environ)
    told = rows("Settings of an agent")
    assert told.keys() == environ.names
    assert {name for name, default in told.items() if default == "required"} == REQUIRED.keys()
    assert told["PODSLOTS_PORT"] == str(settings.port)
    assert told["PODSLOTS_GRACE_SECONDS"] == str(settings.grace_seconds)
    assert told["PODSLOTS_WORKERS"] == str(int(settings.workers))
    assert told["PODSLOTS_LOCK_READS"] == str(int(settings.lock_reads))
    assert told["PODSLOTS_POD_IP"].strip("`") == settings.addresses[0]
    assert settings.tls_dir is None
    assert f"all of it but {STOP_MARGIN_SECONDS} s" in TEXT
    assert f"at most {MAX_TOKEN_BYTES} bytes" in TEXT
    assert MAX_FILE_BYTES == 1 << 20
    assert "Files of at most 1 MiB" in TEXT


def test_every_setting_of_a_pool_is_told_with_its_default() -> None:
    told = rows("Settings of a pool")
    assert told.keys() == {
        "spec.auth.lockReads",
        "spec.auth.rotationPeriodSeconds",
        "spec.auth.tls.secretName",
        ".serverName",
        ".clientAuth.secretName",
    }
    spec = {"template": {"spec": {}}, "auth": {"tls": {"secretName": "s"}}}
    auth = PoolSpec.parse({"metadata": {"namespace": "NAMESPACE", "name": "POOL"}, "spec": spec}).auth
    assert auth.tls
    assert told["spec.auth.lockReads"] == str(auth.lock_reads).lower()
    assert told["spec.auth.rotationPeriodSeconds"] == str(auth.rotation_period_seconds)
    assert told[".serverName"].strip("`") == auth.tls.server_name
    assert auth.tls.client_secret is None
    assert f"again after {REREAD_SECONDS:g} s" in TEXT
    assert f"for {OVERLAP_SECONDS / 60:g} more minutes" in TEXT


def test_every_kind_of_credential_is_told() -> None:
    section = TEXT.split("\n## Credentials\n")[1].split("\n## ")[0]
    told = [line for line in section.splitlines() if line.startswith("| ")]
    assert len(told) - 2 == len(SECURITY_SCHEMES)
