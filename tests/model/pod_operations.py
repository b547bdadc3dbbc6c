"""The steps of `controller.act.pods`: open, drain and delete, delete."""

from agent.rules import slots
from agent.wire import ErrorCode, Phase
from controller.decide.view import PodState
from tests.model import site as sites
from tests.model.effects import Effect, Local, Op, Rules, delete_pod, drain_id, end, go, label, tell


def open_pod(op: Op, now: Local, rules: Rules) -> list[Effect]:
    if op.at == "label":
        if not now.pod.there:
            return end("finds the Pod gone", now)
        moved = not ("same version" in rules and now.pod.label is PodState.ACTIVE)
        labelled = label(now, PodState.ACTIVE, moved=moved)
        if now.pod.deleting:
            return end("labels the Pod active, sees that it is being deleted, and stops", labelled, taken=True)
        return go("labels the Pod active", op, labelled, "open" if op.drain >= 0 else None)
    told = tell(op, now, slots.Open(drain_id=drain_id(op.drain)), rules)
    if told is None:
        return end("asks the agent to open and gets no answer", now)
    after, refused = told
    if refused:
        return end(f"asks the agent to take back drain {drain_id(op.drain)}: refused, {refused}", after, taken=True)
    return end(f"has the agent take back drain {drain_id(op.drain)}: it is open", after, taken=True)


def drain_and_delete(op: Op, now: Local, rules: Rules) -> list[Effect]:
    pod = now.pod
    match op.at:
        case "read":
            if not pod.there or pod.deleting:
                return end("reads the Pod: it is gone, or on its way out", now)
            drain = op.drain if "same drain id" in rules and op.drain >= 0 else rules.free_drain
            at = "label" if "version late" in rules else "ask"
            text = "reads the Pod and its version"
            return go(text, op, now, at, taken=False, fresh=True, drain=drain)
        case "read again":
            return go("reads the Pod's version again", op, now, "delete", taken=False, fresh=True)
        case "ask" | "confirm":
            return _ask_for_drain(op, now, rules)
        case "label":
            if not op.fresh:
                return go("finds that the Pod changed", op, now, "read", taken=False)
            following = "delete" if "version late" in rules else "confirm"
            return go("labels the Pod draining", op, label(now, PodState.DRAINING), following, fresh=True)
        case "delete":
            if not op.fresh:
                at = "read again" if "no confirm" in rules else "read"
                return go("finds that the Pod changed", op, now, at, taken=False)
            return end("deletes the Pod", delete_pod(now), taken=True)
    if not pod.there:
        return end("finds the Pod gone", now)
    return end("labels the Pod active again", label(now, PodState.ACTIVE), taken=True)


def _ask_for_drain(op: Op, now: Local, rules: Rules) -> list[Effect]:
    if "version late" in rules and op.drain < 0:
        op = op._replace(drain=rules.free_drain)
    name = drain_id(op.drain)
    if "unacked" in rules and now.site.agent is not None and op.same_agent:
        agent = now.site.agent
        if all(slot.task_id is None for slot in agent.slots) and agent.tasks:
            drained = agent._replace(phase=Phase.DRAINED, drain_id=name)
            after = now._replace(site=sites.tidy(now.site._replace(agent=drained)), heard=True)
            return go(f"asks for drain {name}: granted", op, after, "label" if op.at == "ask" else "delete")
    told = tell(op, now, slots.Drain(drain_id=name), rules)
    if told is None:
        if "silence" in rules:
            return go("asks for a drain, and takes silence for idleness", op, now, "label", taken=False)
        return end(f"asks for drain {name} and gets no answer", now)
    after, refused = told
    if "still admits" in rules and refused is None and now.site.agent is not None:
        after = after._replace(site=now.site)
    if refused is ErrorCode.BUSY:
        return go(f"asks for drain {name}: busy", op, after, "undo" if op.known else None)
    if refused:
        return end(f"asks for drain {name}: refused, {refused}", after, taken=True)
    if "version late" in rules:
        return go(f"asks for drain {name}: granted", op, after, "read", taken=True)
    return go(f"asks for drain {name}: granted", op, after, "label" if op.at == "ask" else "delete")


def delete_starting(op: Op, now: Local, rules: Rules) -> list[Effect]:
    del rules
    if op.at == "read":
        if not now.pod.there or now.pod.label is not PodState.STARTING:
            return end("reads the Pod: it is gone, or not starting any more", now)
        return go("reads the Pod: it is still starting", op, now, "delete", taken=False, fresh=True)
    if not op.fresh or not now.pod.there:
        return end("finds that the Pod changed", now)
    return end("deletes the Pod that was never opened", delete_pod(now), taken=True)


def delete_dead(op: Op, now: Local, rules: Rules) -> list[Effect]:
    if op.at == "read":
        dead = now.pod.proof or ("failed is proof" in rules and now.pod.failed)
        if not now.pod.there or not dead:
            return end("reads the Pod: nothing proves its death", now)
        return go("reads the Pod: it is provably dead", op, now, "delete", taken=False, fresh=True)
    if not op.fresh or not now.pod.there:
        return end("finds that the Pod changed", now)
    return end("deletes the dead Pod", delete_pod(now), taken=True)
