"""The controller's role grants what its code calls, and no verb besides. Its calls are read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

from controller.cli.verbs.doctor.trials import CONTROLLER_RIGHTS
from controller.kube import api
from controller.kube.api import Resource
from tests.support.repository import ROOT

Right = tuple[str, str, str]
"""Group, resource with its subresource, verb."""

VERBS = {"get": "get", "list_page": "list", "watch": "watch", "create": "create", "patch": "patch", "delete": "delete"}
FOLLOWED = {"_cache": ("list", "watch"), "Cache": ("list", "watch"), "_list": ("list",), "_delete": ("delete",)}
"""Functions that are given a resource, and what they do with it."""
OF_OTHERS = ("cli", "demo", "local")
"""Programs beside the controller, in its folder."""
NAMED_ELSEWHERE = {
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", "list"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", "list"),
    ("authentication.k8s.io", "tokenreviews", "create"),
    ("authorization.k8s.io", "subjectaccessreviews", "create"),
}
"""Of calls that have their resource in a variable."""


def calls(path: Path) -> Iterator[Right]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Name):
            continue
        resource = getattr(api, node.args[0].id, None)
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if not isinstance(resource, Resource):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        subresource = ast.literal_eval(given["subresource"]) if "subresource" in given else ""
        name = f"{resource.plural}/{subresource}" if subresource else resource.plural
        for verb in FOLLOWED.get(called, (VERBS[called],) if called in VERBS else ()):
            yield resource.group, name, verb


def test_the_role_grants_what_the_controller_calls_and_no_more() -> None:
    folder = ROOT / "controller"
    paths = [path for path in folder.rglob("*.py") if path.relative_to(folder).parts[0] not in OF_OTHERS]
    used = {right for path in paths for right in calls(path)} | NAMED_ELSEWHERE
    granted = {(group, name, verb) for (group, name), verbs in CONTROLLER_RIGHTS.items() for verb in verbs}
    assert used - granted == set()
    assert granted - used == set()
