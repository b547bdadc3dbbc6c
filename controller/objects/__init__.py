"""What users write, parsed once into typed values, and what the controller writes back into it. Pure.

What follows from an object is decided in `controller.decide`.
"""
