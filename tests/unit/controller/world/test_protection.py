"""What the controller knows of the policies, and when it tells its pools."""

from controller.errors import ApiUnavailable, Forbidden, NotFound
from controller.kube.api import ADMISSION_BINDINGS, ADMISSION_POLICIES, Resource
from controller.world.protection import Protection
from manifests.generate import policies
from tests.support.memory_api import MemoryApi


class Site:
    def __init__(self) -> None:
        self.api = MemoryApi()
        self.told = 0
        self.protection = Protection(self.api, self._tell)

    def _tell(self) -> None:
        self.told += 1

    def install(self) -> None:
        for policy in policies():
            for resource, document in zip((ADMISSION_POLICIES, ADMISSION_BINDINGS), policy.documents(), strict=True):
                self.api.put(resource, document)

    def fail(self, error: Exception | None) -> None:
        async def fault(verb: str, resource: Resource, name: str) -> None:
            del verb, resource, name
            if error is not None:
                raise error

        self.api.before = fault

    async def reason(self) -> str | None:
        await self.protection.look()
        return self.protection.found.reason if self.protection.found else None


async def test_pools_are_told_when_something_is_different_and_only_then() -> None:
    site = Site()
    assert await site.reason() == "PoliciesMissing"
    assert await site.reason() == "PoliciesMissing"
    assert site.told == 1
    site.install()
    assert await site.reason() == "PoliciesInForce"
    assert site.told == 2


async def test_an_old_cluster_a_missing_right_and_a_server_that_is_away_are_three_things() -> None:
    site = Site()
    site.fail(NotFound(404, "NotFound", "404 page not found"))
    assert await site.reason() == "PoliciesNotServed"
    site.fail(Forbidden(403, "Forbidden", "may not list"))
    assert await site.reason() == "PoliciesNotKnown"
    site.fail(None)
    site.install()
    assert await site.reason() == "PoliciesInForce"
    site.fail(ApiUnavailable("connection refused"))
    assert await site.reason() == "PoliciesInForce", "what was known stays"
    assert site.told == 3
