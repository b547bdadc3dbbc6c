"""What decides in the controller: functions of a frozen view and the time. Pure, without I/O, clock or randomness.

A decision is a value with its reason; carrying it out is for `controller.act`.
"""
