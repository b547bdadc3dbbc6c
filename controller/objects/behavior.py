"""How fast a pool may grow and shrink: `autoscaling.behavior`, with the words of Kubernetes' autoscaling/v2."""

from dataclasses import dataclass
from enum import StrEnum

from controller.objects.fields import Fields

MAX_POLICIES = 16
MAX_POLICY_VALUE = 10_000
MAX_PERIOD_SECONDS = 1800
MAX_WINDOW_SECONDS = 3600
"""Both as in autoscaling/v2: their history is in the pool's status, and has to stay small."""


class PolicyType(StrEnum):
    """What a policy's value counts."""

    PODS = "Pods"
    PERCENT = "Percent"


class SelectPolicy(StrEnum):
    """Which of several policies holds: the one that allows the largest change, the least one, or no change at all."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicy:
    """Within any `period_seconds` the size may change by `value` Pods, or by `value` percent of what it was."""

    type: PolicyType = PolicyType.PODS
    value: int
    period_seconds: int


ONE_BY_ONE = (ScalingPolicy(value=1, period_seconds=15),)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRules:
    """What bounds the changes in one direction.

    `stabilization_window_seconds`: the size goes no further than it would have, at any moment of that time. `tolerance`
    is the share of a threshold by which the utilisation has to be beyond it.
    """

    policies: tuple[ScalingPolicy, ...] = ONE_BY_ONE
    select: SelectPolicy = SelectPolicy.MAX
    stabilization_window_seconds: int = 0
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """The rules of both directions.

    `limits_queue`: somebody wrote the rules for growing down, so they hold for what waits in the queue too. The default
    ones are for what the thresholds ask for.
    """

    scale_up: ScalingRules = ScalingRules()
    scale_down: ScalingRules = ScalingRules()
    limits_queue: bool = False


def parse_behavior(autoscaling: Fields) -> Behavior:
    """The behaviour of an `autoscaling`. Raises InvalidObject."""
    given = autoscaling.optional_child("behavior")
    if given is None:
        return Behavior()
    up, down = given.optional_child("scaleUp"), given.optional_child("scaleDown")
    return Behavior(
        scale_up=_rules(up) if up else ScalingRules(),
        scale_down=_rules(down) if down else ScalingRules(),
        limits_queue=up is not None,
    )


def _rules(given: Fields) -> ScalingRules:
    policies = tuple(_policy(entry) for entry in given.children("policies", most=MAX_POLICIES))
    if given.has("policies") and not policies:
        raise given.fail("policies", "must have a policy; selectPolicy Disabled is for no change at all")
    return ScalingRules(
        policies=policies or ONE_BY_ONE,
        select=SelectPolicy(given.choice("selectPolicy", SelectPolicy.MAX, tuple(SelectPolicy))),
        stabilization_window_seconds=given.integer("stabilizationWindowSeconds", 0, most=MAX_WINDOW_SECONDS),
        tolerance=given.number("tolerance", 0.0, least=0.0, most=1.0),
    )


def _policy(given: Fields) -> ScalingPolicy:
    return ScalingPolicy(
        type=PolicyType(given.choice("type", "", tuple(PolicyType))),
        value=given.integer("value", least=1, most=MAX_POLICY_VALUE),
        period_seconds=given.integer("periodSeconds", least=1, most=MAX_PERIOD_SECONDS),
    )
