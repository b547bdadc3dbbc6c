"""A field that there is not is answered with the one that was meant, wherever in an object it stands."""

import pytest

from controller.cli.cluster.unknown_fields import with_meant
from controller.kube.api import SLOTPOOLS, SLOTTASKS, Resource


@pytest.mark.parametrize(
    ("resource", "path", "said"),
    [
        (SLOTTASKS, "spec.lockkey", " (did you mean 'lockKey'?)"),
        (SLOTTASKS, "spec.steps.plan.comand", " (did you mean 'command'?)"),
        (SLOTTASKS, "spec.steps.plan.before[0].workingdir", " (did you mean 'workingDir'?)"),
        (SLOTPOOLS, "spec.autoscaling.maxreplica", " (did you mean 'maxReplicas'?)"),
        (SLOTTASKS, "spec.outputs", " (this cluster's definitions are older: podslots doctor)"),
        (SLOTTASKS, "spec.zzz", ""),
        (SLOTTASKS, "specs.zzz.deep[1]", ""),
    ],
)
def test_the_nearest_field_of_its_place_is_named(resource: Resource, path: str, said: str) -> None:
    assert with_meant(resource, f'unknown field "{path}"', doctor="podslots doctor") == f'unknown field "{path}"{said}'


def test_several_fields_are_answered_each_and_other_words_stay() -> None:
    message = 'unknown field "spec.lockkey", unknown field "spec.qqq", duplicate field "spec.pool"'
    said = with_meant(SLOTTASKS, message, doctor="podslots doctor")
    first, *others = said.split(", ")
    assert first == "unknown field \"spec.lockkey\" (did you mean 'lockKey'?)"
    assert others == ['unknown field "spec.qqq"', 'duplicate field "spec.pool"']
