"""Builds slot-agent as one file that runs in any Linux image: `python -m binary`.

Belongs here: choosing what goes in (modules.py, libraries.py), making the files (parts.py), the format of the result
(bundle.py), and the sources that are built in (launcher.c, program.c, start.py). Nothing here is imported by what runs.

Why not PyInstaller, Nuitka or a zipapp: they need the image's C library or loader, so neither Alpine, distroless nor an
old release could be a worker; a one-file PyInstaller unpacks itself at every start; and a worker starts with every slot
of every Pod. docs/binary.md has the figures.
"""
