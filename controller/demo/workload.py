"""What the demo asks for: a pool, twelve plans, and three plans with an apply. Pure.

With `terraform` on the PATH each task is a real configuration of `terraform_data`, which is built in: `terraform init`
downloads nothing. Without, a shell writes a plan file and runs it: the same steps, the same files.
"""

from typing import Any

from controller.names import API_VERSION

Object = dict[str, Any]

POOL = "terraform"
NAMESPACE = "default"
PLANS = 12
APPLIES = 3
MAX_PODS = 5
SLOTS = 3
PLAN_SECONDS = 7
"""How long a plan takes. Five Pods start in about half of that on two cores, so all fifteen are seen together."""
APPLY_SECONDS = 2

_STEP = """\
# Does one step, and writes down where: the demo's verdict rests on these records.
set -eu
record() {
  printf '{"task": "%s", "step": "%s", "event": "%s", "pod": "%s", "directory": "%s", "inode": %s, "time": %s}\\n' \\
    "$PODSLOTS_TASK_ID" "$PODSLOTS_STEP" "$1" "$HOSTNAME" "$(pwd -P)" "$(stat -c %i .)" "$(date +%s.%N)" \\
    >>"$DEMO_RECORDS/$PODSLOTS_TASK_ID.$PODSLOTS_STEP"
}
record start
"""

_TERRAFORM_STEP = """\
case $PODSLOTS_STEP in
plan)
  terraform plan -input=false -no-color -out=tfplan
  sleep "$DEMO_PLAN_SECONDS"  # where a real plan asks its providers
  ;;
apply)
  terraform apply -input=false -no-color tfplan
  ;;
esac
record end
"""

_TERRAFORM_ENVIRONMENT = {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "TF_CLI_CONFIG_FILE": "/dev/null"}

_SHELL_STEP = """\
case $PODSLOTS_STEP in
plan)
  printf 'echo "creating %s"\\nsleep %s\\necho made >made\\n' "$PODSLOTS_TASK" "$DEMO_APPLY_SECONDS" >tfplan
  echo "Plan: 1 to add:"; cat tfplan
  sleep "$DEMO_PLAN_SECONDS"
  ;;
apply)
  sh ./tfplan
  ;;
esac
record end
"""

_MAIN_TF = """\
resource "terraform_data" "network" {{
  input = "{name}"

  provisioner "local-exec" {{
    command = "sleep {seconds}"
  }}
}}
"""


def pool() -> Object:
    """A pool of nothing, that may grow to five Pods of three slots."""
    worker = {"name": "worker", "image": "podslots/demo:local"}
    return {
        "apiVersion": API_VERSION,
        "kind": "SlotPool",
        "metadata": {"name": POOL, "namespace": NAMESPACE},
        "spec": {
            "autoscaling": {
                "minReplicas": 0,
                "maxReplicas": MAX_PODS,
                "minIdleSeconds": 2,
                # Nobody wants to watch idle Pods go one by one.
                "behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": MAX_PODS, "periodSeconds": 1}]}},
            },
            "template": {"spec": {"containers": [worker], "terminationGracePeriodSeconds": 90}},
        },
    }


def tasks(records: str, *, terraform: bool, plan_seconds: float = PLAN_SECONDS) -> list[Object]:
    """All tasks, those with an apply first. `records` is the folder for their own records."""
    applies = [
        _task(f"network-{n}", "plan_and_apply", records, terraform=terraform, plan_seconds=plan_seconds)
        for n in range(1, APPLIES + 1)
    ]
    plans = [
        _task(f"check-{n:02}", "plan", records, terraform=terraform, plan_seconds=plan_seconds)
        for n in range(1, PLANS + 1)
    ]
    return applies + plans


def _task(name: str, task_type: str, records: str, *, terraform: bool, plan_seconds: float) -> Object:
    files = {"step.sh": _STEP + (_TERRAFORM_STEP if terraform else _SHELL_STEP)}
    if terraform:
        files["main.tf"] = _MAIN_TF.format(name=name, seconds=APPLY_SECONDS)
    variables = _TERRAFORM_ENVIRONMENT if terraform else {}
    plan: Object = {"command": ["sh", "step.sh"], "timeoutSeconds": 120}
    if terraform:
        plan["before"] = [{"command": ["terraform", "init", "-input=false", "-no-color"]}]
    steps = {"plan": plan}
    if task_type == "plan_and_apply":
        plan["planFile"] = "tfplan"
        steps["apply"] = {"command": ["sh", "step.sh"], "timeoutSeconds": 120}
    return {
        "apiVersion": API_VERSION,
        "kind": "SlotTask",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "pool": POOL,
            "type": task_type,
            "priority": 1 if task_type == "plan_and_apply" else 0,  # only slot 0 takes it: it goes first
            "files": files,
            "env": [
                {"name": "DEMO_RECORDS", "value": records},
                {"name": "DEMO_PLAN_SECONDS", "value": f"{plan_seconds:g}"},
                {"name": "DEMO_APPLY_SECONDS", "value": str(APPLY_SECONDS)},
                *({"name": name, "value": value} for name, value in variables.items()),
            ],
            "steps": steps,
        },
    }
