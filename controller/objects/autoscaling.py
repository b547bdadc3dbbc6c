"""`spec.autoscaling` of a SlotPool, parsed once."""

from collections.abc import Collection
from dataclasses import dataclass, field

from controller.errors import InvalidObject
from controller.objects.behavior import Behavior, parse_behavior
from controller.objects.fields import Fields
from controller.objects.freeze import FreezeWindow, parse_freeze
from controller.objects.signal import Signal, parse_signal

MAX_REPLICAS = 10_000
MAX_IDLE_SECONDS = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaling:
    """When the controller decides the size. `idle_slots` are slots kept free per task type.

    `target_utilization_percent`, if it is given, is both thresholds. `signal` None: agents say what is in use.
    """

    max_replicas: int
    min_replicas: int = 0
    scale_up_utilization_percent: int = 80
    scale_down_utilization_percent: int = 20
    target_utilization_percent: int | None = None
    idle_slots: dict[str, int] = field(default_factory=dict)
    min_idle_seconds: int = 60
    behavior: Behavior = field(default_factory=Behavior)
    freeze: tuple[FreezeWindow, ...] = ()
    signal: Signal | None = None
    paused: bool = False

    @property
    def upper_percent(self) -> int:
        """The utilisation that a pool of the right size does not exceed."""
        target = self.target_utilization_percent
        return self.scale_up_utilization_percent if target is None else target

    @property
    def lower_percent(self) -> int:
        """The utilisation at or below which Pods may go."""
        target = self.target_utilization_percent
        return self.scale_down_utilization_percent if target is None else target

    @property
    def grows_above_percent(self) -> float:
        """The upper threshold with its tolerance."""
        return self.upper_percent * (1 + self.behavior.scale_up.tolerance)

    @property
    def shrinks_to_percent(self) -> float:
        """The lower threshold with its tolerance."""
        return self.lower_percent * (1 - self.behavior.scale_down.tolerance)


def parse_autoscaling(given: Fields, accepted: Collection[str]) -> Autoscaling:
    """An `autoscaling` object of a pool whose slots take the `accepted` task types. Raises InvalidObject."""
    idle = given.optional_child("idleSlots") or Fields({}, given.at("idleSlots"))
    if unknown := sorted(set(idle.data).difference(accepted)):
        raise InvalidObject(idle.at(unknown[0]), "no slot accepts this task type")
    parsed = Autoscaling(
        min_replicas=given.integer("minReplicas", 0, most=MAX_REPLICAS),
        max_replicas=given.integer("maxReplicas", most=MAX_REPLICAS),
        scale_up_utilization_percent=given.integer("scaleUpUtilizationPercent", 80, least=1, most=100),
        scale_down_utilization_percent=given.integer("scaleDownUtilizationPercent", 20, most=99),
        target_utilization_percent=given.optional_integer("targetUtilizationPercent", least=1, most=100),
        idle_slots={name: idle.integer(name, most=MAX_REPLICAS) for name in sorted(idle.data)},
        min_idle_seconds=given.integer("minIdleSeconds", 60, most=MAX_IDLE_SECONDS),
        behavior=parse_behavior(given),
        freeze=parse_freeze(given),
        signal=parse_signal(given),
        paused=given.boolean("paused"),
    )
    if parsed.min_replicas > parsed.max_replicas:
        raise given.fail("minReplicas", f"must not exceed maxReplicas ({parsed.max_replicas})")
    thresholds = [name for name in ("scaleUpUtilizationPercent", "scaleDownUtilizationPercent") if given.has(name)]
    if parsed.target_utilization_percent is not None and thresholds:
        raise given.fail(
            "targetUtilizationPercent", f"takes the place of {' and '.join(thresholds)}: give one or other"
        )
    if parsed.scale_down_utilization_percent >= parsed.scale_up_utilization_percent:
        raise given.fail(
            "scaleDownUtilizationPercent",
            f"must be below scaleUpUtilizationPercent ({parsed.scale_up_utilization_percent})",
        )
    return parsed
