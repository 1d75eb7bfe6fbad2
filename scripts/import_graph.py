#!/usr/bin/env python
"""Show which part of the package imports which, lowest first; exit 1 if there is a circle, or if anything imports a command.

    python scripts/import_graph.py [FOLDER OF THE PACKAGE]

A part is a folder of rcnn/, or a module that lies in rcnn/ itself. Imports for type checkers alone are no arrows.
"""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def imports(path: Path, package: Path) -> set[str]:
    """Dotted names below the package, such as "score.mssa", of what a file imports anywhere in it."""
    found, modules = set(), {".".join(p.relative_to(package).with_suffix("").parts) for p in package.rglob("*.py")}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        n for t in ast.walk(tree) if isinstance(t, ast.If) and ast.unparse(t.test) == "TYPE_CHECKING" for n in ast.walk(t)
    }
    for node in set(ast.walk(tree)) - for_types:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {name.removeprefix(f"{package.name}.") for name in names if name.startswith(f"{package.name}.")}
    return {name for name in found if name in modules or f"{name}.__init__" in modules}


def graph(package: Path) -> dict[str, set[str]]:
    """Part -> the parts that it imports; what a folder's own __init__ defines or hands on is a part beside the folder."""

    def part(name):
        folder, _, rest = name.partition(".")
        return folder if rest or not (package / folder).is_dir() else f"{folder}.__init__"

    parts = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__" and path.stat().st_size:
            parts.setdefault(part(name), set()).update(part(other) for other in imports(path, package))
    return {name: others & parts.keys() - {name} for name, others in parts.items()}


def commands(package: Path) -> set[str]:
    """Modules that are run: those of rcnn/ with a main."""
    return {path.stem for path in package.glob("*.py") if "\ndef main(" in path.read_text(encoding="utf-8")}


def main(argv: list[str]) -> int:
    package = Path(argv[0]) if argv else ROOT / "rcnn"
    found, run = graph(package), commands(package)
    try:
        order = list(TopologicalSorter(found).static_order())
    except CycleError as error:
        print(f"a circle: {' -> '.join(error.args[1])}")
        return 1
    level = {}
    for part in order:
        level[part] = 1 + max((level[other] for other in found[part]), default=-1)
    for part in sorted(order, key=lambda part: (level[part], part)):
        print(f"{level[part]:2}  {part + (' (command)' if part in run else ''):22} {' '.join(sorted(found[part]))}")
    wrong = [f"{part} imports the command {other}" for part in order for other in found[part] & run]
    print("\n".join(wrong) or "no circle, and nothing imports a command")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
