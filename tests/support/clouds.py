"""What real Terraform makes its things in: a fake AWS with the AWS provider, or a folder with a provider of our own.

Each can tell what is there, what Terraform's state knows, and whether the state is locked. Making three things takes a
while, and each is there from the beginning of that.
"""

import json
import re
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar, Protocol

BUCKET = "states"
SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
"""Not checked, but without one the fake takes the caller for nobody."""


class Cloud(Protocol):
    """`environment`: what Terraform needs to reach it. `mirror`: where its provider is."""

    name: ClassVar[str]
    environment: ClassVar[dict[str, str]]
    limit_seconds: ClassVar[int]
    """By then Terraform has begun to make things, and is not done with it."""
    mirror: Path

    def configuration(self, name: str, seconds: int) -> str:
        """A `main.tf` that makes three things, which are called `name` and a number, each in so many seconds.

        Not every cloud lets itself be told how long it takes.
        """
        ...

    def made(self, name: str) -> set[str]:
        """The names of the things that there are."""
        ...

    def in_state(self, name: str) -> set[str]:
        """The names of those that the state knows."""
        ...

    def locked(self, name: str) -> bool:
        """Whether somebody holds the state."""
        ...


class FakeAws:
    """moto: SQS queues take 25 s to be made, and the state with its lock is in S3."""

    name: ClassVar = "aws"
    environment: ClassVar = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    limit_seconds: ClassVar = 20

    def __init__(self, url: str, mirror: Path) -> None:
        self.url = url
        self.mirror = mirror

    def get(self, path: str, method: str = "GET") -> bytes | None:
        """What is there; None if nothing is."""
        headers = {"Authorization": SIGNED}
        request = urllib.request.Request(f"{self.url}/{path}", method=method, headers=headers)  # noqa: S310 - our own
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                found: bytes = answer.read()
                return found
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            return None

    def configuration(self, name: str, seconds: int) -> str:
        del seconds
        return _AWS.format(bucket=BUCKET, name=name, url=self.url)

    def made(self, name: str) -> set[str]:
        text = (self.get("moto-api/data.json") or b"").decode()
        return set(re.findall(rf'"({name}-\d)"', text))

    def in_state(self, name: str) -> set[str]:
        return _names(self.get(f"{BUCKET}/{name}"))

    def locked(self, name: str) -> bool:
        return self.get(f"{BUCKET}/{name}.tflock") is not None


class Folder:
    """Files that our own provider makes; a state beside them."""

    name: ClassVar = "folder"
    environment: ClassVar[dict[str, str]] = {}
    limit_seconds: ClassVar = 6

    def __init__(self, folder: Path, mirror: Path) -> None:
        self.mirror = mirror
        self._things = folder / "things"
        self._states = folder / "states"
        for made in (self._things, self._states):
            made.mkdir(parents=True)

    def configuration(self, name: str, seconds: int) -> str:
        return _SLOW.format(state=self._states / name, things=self._things, name=name, seconds=seconds)

    def made(self, name: str) -> set[str]:
        return {path.name for path in self._things.glob(f"{name}-?")}

    def in_state(self, name: str) -> set[str]:
        state = self._states / name
        return _names(state.read_bytes() if state.exists() else None)

    def locked(self, name: str) -> bool:
        return (self._states / f".{name}.lock.info").exists()


def _names(state: bytes | None) -> set[str]:
    resources = json.loads(state or b"{}").get("resources", ())
    return {instance["attributes"]["name"] for entry in resources for instance in entry["instances"]}


_AWS = """\
terraform {{
  required_providers {{
    aws = {{ source = "hashicorp/aws" }}
  }}
  backend "s3" {{
    bucket                      = "{bucket}"
    key                         = "{name}"
    region                      = "us-east-1"
    endpoints                   = {{ s3 = "{url}" }}
    use_lockfile                = true
    use_path_style              = true
    skip_credentials_validation = true
    skip_metadata_api_check     = true
    skip_requesting_account_id  = true
    skip_s3_checksum            = true
  }}
}}
provider "aws" {{
  region                      = "us-east-1"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
  endpoints {{
    sqs = "{url}"
  }}
}}
resource "aws_sqs_queue" "made" {{
  count = 3
  name  = "{name}-${{count.index}}"
}}
"""
_SLOW = """\
terraform {{
  required_providers {{
    slow = {{ source = "podslots/slow" }}
  }}
  backend "local" {{
    path = "{state}"
  }}
}}
resource "slow_thing" "made" {{
  count   = 3
  folder  = "{things}"
  name    = "{name}-${{count.index}}"
  seconds = {seconds}
}}
"""
