"""What decides in the controller: functions of a frozen view and the time. Pure, without I/O, clock or randomness.

A decision is a value with its reason; carrying it out is for `controller.act`.

Here stands what is decided on: the view, and what it is made of. The decisions are in rooms that rest on each other:
`scaling` first, then `pods` and `tasks`, then `pools`.
"""
