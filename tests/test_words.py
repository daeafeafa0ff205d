"""Docstrings are plain technical English: what is described is the subject, and no part of the program is a person."""

import ast
import re

import pytest
from test_layers import MODULES, name_of
from trees import nodes_of

PERSONS = re.compile(r"\b(asks?|asked|asking|hears?|heard|told|tells?|knows|wants|remembers?|nobody|somebody|everybody|"
                     r"whoever|speaks?|says?(?<!, say)|said|saying|sees|wanted|wishes)\b")


def of_persons(text):
    """Words of a docstring by which a thing would be a person; names in backticks are none."""
    return PERSONS.findall(re.sub(r"`[^`]*`", "", text))


@pytest.mark.parametrize(("text", "found"), [
    ("Power drawn by the site in the last step, kW.", []), ("What the grid hears of a site.", ["hears"]),
    ("`told` is a layer.", []), ("Nodes whose bus nobody asked for.", ["nobody", "asked"]),
    ("The limit, unless a file says otherwise.", ["says"]), ("A ramp, say, of one source.", [])])
def test_words_of_persons_are_found(text, found):
    assert of_persons(text) == found


def test_no_docstring_makes_a_person_of_a_thing():
    texts = [(path, node.lineno, node.value.value) for path in MODULES for node in nodes_of(path)
             if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    assert len(texts) > len(MODULES)
    assert not {f"{name_of(path)}:{line}: {word}" for path, line, text in texts if isinstance(text, str)
                for word in of_persons(text)}
