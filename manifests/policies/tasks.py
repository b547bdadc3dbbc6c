"""The policies on SlotTasks: who approves plans, and who changes the rest of a task."""

from agent.paths import MAX_PART_LENGTH, MAX_PATH_LENGTH, PATH_RULE
from controller import names
from manifests.policies.policy import Policy, may, others_than, refuse_invalid, refuse_unless, refuse_without

_APPROVING = ("slottasks/approval", "podslots-approve")
"""The right to approve, and the role that has it."""


def approval() -> Policy:
    """Who approves plans."""
    approval = "object.spec.?approval"
    return Policy(
        name="podslots-approval",
        why=(
            "Who approves a plan needs `update` on slottasks/approval, approves in their own name, and only once "
            "the plan is there. This holds for the controller and for administrators, too."
        ),
        operations=("CREATE", "UPDATE"),
        resources=("slottasks",),
        group=names.GROUP,
        version=names.VERSION,
        conditions=(
            {
                "name": "changes-the-approval",
                "expression": "request.operation == 'CREATE' ? has(object.spec.approval) : "
                f"{approval} != oldObject.spec.?approval",
            },
        ),
        validations=(
            refuse_unless(
                "request.operation != 'CREATE'", "a task is approved once its plan is there, not at its creation"
            ),
            refuse_without(
                *_APPROVING, "approve", unless=f"request.operation == 'CREATE' || {may('slottasks', 'approval')}"
            ),
            refuse_unless(
                "request.operation == 'CREATE' || !has(object.spec.approval) || "
                "object.spec.approval.?by.orValue('') == request.userInfo.username",
                "spec.approval.by must name who approves",
                computed="'spec.approval.by must name who approves: ' + request.userInfo.username",
            ),
        ),
    )


def automatic_approval() -> Policy:
    """Who creates tasks that approve themselves."""
    return Policy(
        name="podslots-automatic-approval",
        why=("Who creates a task with approvalPolicy Auto needs the right to approve, or could bypass it."),
        operations=("CREATE",),
        resources=("slottasks",),
        group=names.GROUP,
        version=names.VERSION,
        conditions=({"name": "approves-itself", "expression": "object.spec.?approvalPolicy.orValue('') == 'Auto'"},),
        validations=(
            refuse_without(*_APPROVING, "submit a task with approvalPolicy: Auto", unless=may("slottasks", "approval")),
        ),
    )


def task_update(user: str) -> Policy:
    """Who changes more of a task than its approval: editors only."""
    changed = " || ".join(
        f"object.{field} != oldObject.{field}"
        for field in (
            "spec.?cancel",
            "spec.?priority",
            "metadata.?labels",
            "metadata.?annotations",
            "metadata.?finalizers",
            "metadata.?ownerReferences",
        )
    )
    editor = (
        f"authorizer.group('{names.GROUP}').resource('slottasks').namespace(request.namespace).name(request.name)"
        ".check('update').allowed()"
    )
    return Policy(
        name="podslots-task-update",
        why=(
            "Approving takes `patch` on tasks, and RBAC can't limit that to the approval. So a user without `update` "
            "on tasks may change the approval only, and can't cancel a task or stop its deletion."
        ),
        operations=("UPDATE",),
        resources=("slottasks",),
        group=names.GROUP,
        version=names.VERSION,
        conditions=(
            others_than(user),
            {"name": "changes-more-than-the-approval", "expression": changed},
        ),
        validations=(
            refuse_without(
                *("slottasks", "podslots-edit", "change this task"),
                in_full="may approve this task, and not change it",
                unless=editor,
            ),
        ),
    )


def task_files() -> Policy:
    """Which files a task may have, and who changes them: nobody.

    The definition can say neither, as their entries have no schema: it sees no names, and kube-apiserver compares the
    entries that both have, and their number. A file under a new name, or another in its place, passes there.
    """
    return Policy(
        name="podslots-task-files",
        why=(
            "A task's files have paths in its directory, and stay as they are, as all of its spec but approval, cancel "
            "and priority. The definition can't say so: Kubernetes looks at no keys of what has no schema."
        ),
        operations=("CREATE", "UPDATE"),
        resources=("slottasks",),
        group=names.GROUP,
        version=names.VERSION,
        variables={"files": "object.spec.?files.orValue({})"},
        validations=(
            refuse_unless(
                "oldObject == null || object.spec.?files == oldObject.spec.?files",
                "only approval, cancel and priority can be changed; a changed task needs a new name",
            ),
            refuse_invalid(
                f"oldObject != null || variables.files.all(path, size(path) <= {MAX_PATH_LENGTH}"
                " && !path.contains('\\u0000') && path.split('/').all(part, "
                f"part != '' && part != '.' && part != '..' && size(part) <= {MAX_PART_LENGTH}))",
                f"spec.files: each {PATH_RULE}",
            ),
            refuse_invalid(
                "oldObject != null || !variables.files.exists(path,"
                " variables.files.exists(other, other.startsWith(path + '/')))",
                "spec.files: one is the folder of another",
            ),
        ),
    )
