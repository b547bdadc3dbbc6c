"""How Pods become a page of a list. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from agent.wire import RECOVERING, Slot
from controller import names
from controller.decide.view import PodState, PodView
from controller.status_page.model import SILENT, Listed, PodSaid, PodsWanted, PoolKnown, SlotSaid, short


def pods_said(known: Iterable[PoolKnown], wanted: PodsWanted) -> Listed[PodSaid]:
    """A page of the Pods that are asked for."""
    found = []
    for pool in known:
        holders: dict[str, str] = {task.task_id: task.name for task in pool.tasks}
        found += [(pool, pod, holders) for pod in pool.pods if _is_wanted(pod, holders, wanted)]
    if wanted.oldest_first:
        found.sort(key=lambda entry: (*_held_since(entry[1]), entry[0].namespace, entry[1].name))
    else:
        found.sort(key=lambda entry: (entry[0].namespace, entry[0].name, entry[1].name))
    page = found[wanted.offset : wanted.offset + wanted.limit]
    return Listed(total=len(found), items=tuple(_pod(*entry) for entry in page))


def _held_since(pod: PodView) -> tuple[bool, datetime]:
    return not pod.held, min((slot.since for slot in pod.held), default=pod.created)


def _is_wanted(pod: PodView, holders: Mapping[str, str], wanted: PodsWanted) -> bool:
    if wanted.state == SILENT and pod.connected:
        return False
    slots = pod.agent.slots if pod.agent is not None else ()
    if wanted.state not in {"", SILENT} and not any(_slot_state(slot) == wanted.state for slot in slots):
        return False
    if not wanted.text:
        return True
    named = (holders.get(slot.task_id, slot.task_id) for slot in pod.held if slot.task_id)
    return wanted.text in pod.name or any(wanted.text in name for name in named)


def _slot_state(slot: Slot) -> str:
    return RECOVERING if slot.recovering else slot.state.value


def _pod(pool: PoolKnown, pod: PodView, holders: Mapping[str, str]) -> PodSaid:
    agent = pod.agent
    return PodSaid(
        namespace=pool.namespace,
        pool=pool.name,
        name=pod.name,
        state=pod.word,
        created=pod.created,
        connected=pod.connected,
        agent_version=agent.version if agent is not None else None,
        idle_since=pod.idle_since,
        notes=tuple(_notes(pod)),
        slots=tuple(_slot(slot, holders) for slot in agent.slots) if agent is not None else (),
    )


def _notes(pod: PodView) -> Iterable[str]:
    if pod.start_problem is not None:
        yield short(f"{pod.start_problem.reason}: {pod.start_problem.message}")
    if pod.deleting:
        yield "it was deleted, and ends"
    if not pod.connected and not pod.dead and pod.state is not PodState.STARTING:
        yield "its agent is not reached yet" if pod.contacting else "its agent does not answer"
    if pod.drain_requested:
        yield "somebody asked to have it drained"
    if pod.node_cordoned:
        yield "its node is cordoned"
    if pod.disowned:
        yield "an earlier pool of this name made it"
    if pod.agent_too_old:
        yield "its agent is too old to be given work"
    if pod.agent is not None:
        yield from map(short, pod.agent.warnings)


def _slot(slot: Slot, holders: Mapping[str, str]) -> SlotSaid:
    known = holders.get(slot.task_id or "")
    parts = names.split_task_id(slot.task_id or "")
    return SlotSaid(
        id=slot.id,
        accepts=slot.accepts,
        state=_slot_state(slot),
        since=slot.since,
        holder=known or (short(slot.task_id) if slot.task_id else None),
        type=slot.task_type,
        step=slot.step.value if slot.step is not None and parts is not None else None,
        expires_at=slot.expires_at,
        worker=slot.worker.connected if slot.worker is not None else None,
    )
