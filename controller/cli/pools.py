"""What people ask of pools. An annotation says it; only the controller acts."""

from controller import names
from controller.cli.session import Connection
from controller.kube.api import SLOTPOOLS


async def rotate(connection: Connection, name: str) -> str:
    """Have the pool's tokens rotated once, now."""
    pool = await connection.get(SLOTPOOLS, name)
    request = connection.now().isoformat(timespec="microseconds")
    patch = {"metadata": {"uid": pool["metadata"]["uid"], "annotations": {names.ROTATION_REQUESTED: request}}}
    await connection.api.patch(SLOTPOOLS, connection.namespace, name, patch)
    return f"{name}: rotation of its tokens requested; its condition TokensInSync tells how it goes"
