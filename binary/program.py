"""Compiles the two programs of a bundle: Python with the modules inside, and the launcher."""

import ast
import marshal
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from binary.errors import BuildError
from binary.modules import Module

SOURCES = Path(__file__).parent
START = "_slot_agent_start"
RUN = f"import {START}; {START}.start(); import sys; from agent.__main__ import main; sys.exit(main())"

NAMES: Mapping[str, str] = {
    "PROGRAM": "program",
    "LIBRARIES": "lib",
    "LOADER": "lib/loader",
    "HOME_VARIABLE": "_SLOT_AGENT_HOME",
    "ASIDE_PREFIX": "_SLOT_AGENT_ASIDE_",
    "MAGIC": "slotagnt",
    "RUN": RUN,
}
"""What the C sources and the bundle must agree on. `BUNDLE` joins them once the content is known."""

_ASSEMBLY = """\
.section .rodata
.global frozen_code
frozen_code: .incbin "frozen.bin"
.section .note.GNU-stack, "", %progbits
"""

_STRICT = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2")


def compile_program(modules: Sequence[Module], folder: Path, target: Path) -> None:
    """Python as a program, with these modules frozen into it. Works in `folder`."""
    start = Module(START, SOURCES / "start.py", is_package=False, is_extension=False)
    frozen = [start, *modules]
    blob, declarations, rows = bytearray(), [], []
    for module in frozen:
        code = _code(module)
        rows.append(
            f'{{.name = "{module.name}", .code = frozen_code + {len(blob)}, .size = {len(code)},'
            f" .is_package = {int(module.is_package)}}},"
        )
        blob += code
    declarations.append("extern const unsigned char frozen_code[];")
    table = ["static const struct _frozen modules[] = {", *rows, "{0}};"]
    (folder / "modules.h").write_text("\n".join([*declarations, *table, ""]))
    (folder / "frozen.bin").write_bytes(blob)
    _write_names(folder, NAMES)
    (folder / "frozen.S").write_text(_ASSEMBLY)
    headers = sysconfig.get_path("include")
    if not Path(headers, "Python.h").exists():
        raise BuildError(f"Python's headers are needed to build the binary (python3-dev): {headers} has none")
    _compile(folder, target, [str(SOURCES / "program.c"), "frozen.S", f"-I{headers}", *_python()])


def compile_launcher(bundle: str, folder: Path, target: Path) -> None:
    """The static program that starts the bundle of this name."""
    _write_names(folder, {**NAMES, "BUNDLE": bundle})
    _compile(folder, target, ["-static", str(SOURCES / "launcher.c")])


def strip(target: Path) -> None:
    """Take away what only debuggers need."""
    _run(["strip", "--strip-unneeded", str(target)], target.parent)


def _code(module: Module) -> bytes:
    """A module's code, without docstrings, which nobody reads here: they are a fifth of its memory. Asserts stay."""
    tree = ast.parse(module.path.read_bytes())
    described = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, described) and ast.get_docstring(node):
            if len(node.body) == 1:
                node.body[0] = ast.copy_location(ast.Pass(), node.body[0])
            else:
                del node.body[0]
    # No path of the machine that built it: the same sources give the same binary.
    file = module.name.replace(".", "/") + ("/__init__.py" if module.is_package else ".py")
    return marshal.dumps(compile(tree, file, "exec", dont_inherit=True, optimize=0))


def _python() -> list[str]:
    """How to link Python in."""
    config = sysconfig.get_config_vars()
    if config.get("Py_ENABLE_SHARED"):
        return [f"-L{config['LIBDIR']}", f"-lpython{config['LDVERSION']}", "-ldl", "-lm"]
    archive = Path(config["LIBPL"], config["LIBRARY"])
    if not archive.exists():
        raise BuildError(f"this Python can't be linked into a program: it has no shared library, and no {archive}")
    libraries = f"{config['LIBS']} {config['SYSLIBS']}".split()
    return ["-Wl,-E", str(archive), *libraries]


def _write_names(folder: Path, names: Mapping[str, str]) -> None:
    (folder / "names.h").write_text("".join(f'#define {name} "{value}"\n' for name, value in names.items()))


def _compile(folder: Path, target: Path, arguments: Sequence[str]) -> None:
    if not (compiler := shutil.which("gcc") or shutil.which("cc")):
        raise BuildError("a C compiler is needed to build the binary (gcc and libc6-dev)")
    _run([compiler, *_STRICT, f"-I{folder}", "-o", str(target), *arguments], folder)
    strip(target)


def _run(command: Sequence[str], folder: Path) -> None:
    result = subprocess.run(  # noqa: S603 - the compiler and its companions
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode:
        raise BuildError(f"{' '.join(command)} ended with status {result.returncode}:\n{result.stdout}")


if sys.platform != "linux":
    raise BuildError("the binary is one for Linux, and is built there")
