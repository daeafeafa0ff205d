"""Syntax trees of the sources, for all rules about them."""

import ast
import gc
from functools import cache
from pathlib import Path


def tree_of(path: Path) -> ast.Module:
    """A file's syntax tree. While it grows nothing of it is garbage, and to look for that would take most of the
    time."""
    on = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        if on:
            gc.enable()


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """All nodes of the syntax tree of a module that ships, each before those inside it; parsed once."""
    return list(ast.walk(tree_of(path)))
