"""Processes as the kernel has them: who runs, with which environment and temporary folder, and how memory ended."""
