"""What the commands of `podslots` do, and how they show it. `main` has their names and options.

They speak to the Kubernetes API only. Nothing here imports the controller's decisions: a person's command is an
object, an annotation or a field, and the controller does the rest.

`verbs` has a module for each command. Below it stand what several verbs need: `arguments` (what people write),
`task` (one task, followed), `show` (what people see), `cluster` (the connection) and `local` (processes here).
"""
