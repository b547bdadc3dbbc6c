"""The controller's own HTTP server: health, metrics, and a page with every pool, Pod and slot, for people."""

from collections.abc import Awaitable, Callable, Iterator
from html import escape

from aiohttp import web
from prometheus_client import CollectorRegistry

from agent.wire import RECOVERING
from controller.app import Controller
from controller.decide.view import PodView
from controller.kube.api import Object
from controller.names import STATE_LABEL
from controller.objects.task import Task
from metrics.exposition import render

Handler = Callable[[web.Request], Awaitable[web.Response]]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>podslots</title><meta http-equiv="refresh" content="2">
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 2rem; color: #222 }}
table {{ border-collapse: collapse; margin: .5rem 0 2rem }}
th, td {{ border: 1px solid #ccc; padding: .25rem .6rem; text-align: left }}
th {{ background: #f3f3f3; font-weight: 600 }}
.running {{ background: #d8f0d8 }} .reserved {{ background: #ffe9b8 }} .silent {{ color: #a00 }}
</style></head><body><h1>podslots</h1><p>{lead}</p>{pools}</body></html>"""


def create_app(controller: Controller, registry: CollectorRegistry) -> web.Application:
    """The application: `/`, `/healthz`, `/readyz`, `/metrics`."""
    app = web.Application()

    async def page(request: web.Request) -> web.Response:
        del request
        return web.Response(text=render_page(controller), content_type="text/html")

    async def metrics(request: web.Request) -> web.Response:
        body, content_type = render(registry, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    app.router.add_get("/", page)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", _probe(controller.healthy, "reconciling has stopped"))
    app.router.add_get("/readyz", _probe(lambda: controller.synced, "not everything was read yet"))
    return app


def _probe(check: Callable[[], bool], problem: str) -> Handler:
    async def probe(request: web.Request) -> web.Response:
        del request
        fine = check()
        return web.Response(text="ok\n" if fine else f"{problem}\n", status=200 if fine else 503)

    return probe


def render_page(controller: Controller) -> str:
    """Every pool with its Pods, slots and tasks, as HTML that reloads itself."""
    holder = controller.election.holder or "nobody"
    here = "this replica" if controller.election.may_act() else escape(holder)
    pools = sorted(controller.pools.items(), key=_name)
    return _PAGE.format(
        lead=f"Leader: {here}",
        pools="".join(_pool(controller, pool) for pool in pools) or "<p>There are no pools.</p>",
    )


def _name(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _pool(controller: Controller, pool: Object) -> str:
    key = _name(pool)
    status = pool.get("status") or {}
    size = f"{status.get('replicas', 0)} Pods, {status.get('desiredReplicas', 0)} wanted"
    pods = sorted(controller.world.views.pods(key).values(), key=lambda pod: pod.name)
    tasks = list(controller.world.index.live(key).values())
    return (
        f"<h2>{escape('/'.join(key))}</h2><p>{escape(size)}</p>"
        f"{_table(('Pod', STATE_LABEL, 'slot', 'state', 'step', 'task'), _slots(pods, tasks))}"
        f"{_table(('task', 'phase', 'step', 'Pod', 'slot', 'attempt'), _tasks(tasks))}"
    )


def _slots(pods: list[PodView], tasks: list[Task]) -> Iterator[tuple[str, tuple[str, ...]]]:
    names: dict[str, str] = {task.task_id: task.name for task in tasks}
    for pod in pods:
        silent = "" if pod.connected else "silent"
        if pod.agent is None:
            yield silent, (pod.name, pod.state, "", "not heard of yet", "", "")
            continue
        for slot in pod.agent.slots:
            task = names.get(slot.task_id or "", slot.task_id or "")
            state = RECOVERING if slot.recovering else slot.state.value
            yield silent or state, (pod.name, pod.state, str(slot.id), state, slot.step or "", task)


def _tasks(tasks: list[Task]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for task in tasks:
        status = task.status
        slot = "" if status.slot is None else str(status.slot)
        yield "", (task.name, status.phase, status.step or "", status.pod or "", slot, str(status.attempt))


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, tuple[str, ...]]]) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f'<tr class="{escape(style)}">' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        for style, cells in rows
    )
    return f"<table><tr>{header}</tr>{body}</table>"
