"""The token of a kubeconfig's user with an `auth-provider` (OpenID Connect, Google), by kubernetes_asyncio.

It is loaded for these users alone: it costs half a second and 40 MiB, and all else is read without it.
"""

import asyncio
import os

from controller.errors import NoConfiguration


def authorization(paths: str | None, context: str | None) -> str:
    """The value of the header. An expired token is renewed as the provider says, over the network.

    `paths` are kubeconfigs, one or several as in KUBECONFIG. Not for a thread with a running loop. Raises
    NoConfiguration, and what kubernetes_asyncio raises.
    """
    from kubernetes_asyncio import config  # noqa: PLC0415 - see above
    from kubernetes_asyncio.client import Configuration  # noqa: PLC0415

    found = Configuration()
    files = os.pathsep.join(path for path in (paths or "~/.kube/config").split(os.pathsep) if path)
    asyncio.run(config.load_kube_config(config_file=files, context=context, client_configuration=found))
    token = found.api_key.get("BearerToken")
    if not token:
        raise NoConfiguration("the kubeconfig's auth-provider gave no token; known are oidc and gcp")
    return str(token).strip()
