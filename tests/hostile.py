"""A trace by hand in which every name and every text is something that a page, a terminal, a spreadsheet or a picture
might take for more than text."""

import json
import shutil

import h5py
import numpy as np

HTML = "<img/src=x/onerror=pwned=1>"
SCRIPT = "</script><script>pwned=1</script>"
ATTRIBUTE = "\"'><svg/onload=pwned=1>"
TEMPLATE = "{{7*7}}${1}%{y}%{x}$x^2$"
PLOTLY = '<b>bold</b><a/href="javascript:pwned=1">go</a>'
MARKS = "**strong**&lt;i&gt;[/b][red]:pile_of_poo:"
MATHS = "$\\frac{1$_{^"
ALL = (HTML, SCRIPT, ATTRIBUTE, TEMPLATE, PLOTLY, MARKS, MATHS)
TERMINAL = "\x1b[31mred\x1b]0;title\x07\u202e"
_TEXTS = ("name", "driver", "created", "error", "status")


def poisoned(source, target, text):
    """Copy a trace of two_bus; each of its names gets `text` before its end."""
    shutil.copy(source, target)
    with h5py.File(target, "r+") as file:
        names: dict[str, str] = {}
        for axis in ("aidc/Site/entity", "aidc/Site/job_class", "grid/Bus/entity", "grid/Grid/source",
                     "grid/Grid/entity"):
            names |= {old: f"{old[:-1]}{text}{old[-1]}" for old in file[axis].asstr()[:]}
        lines = {"0-1": f"{names['bus0']}-{names['bus1']}"}
        swap = {**names, **lines}
        file.visititems(lambda path, data: _axis(data, swap) if isinstance(data, h5py.Dataset) else None)
        for table in ("jobs", "wiring", "initial", "grid.branches", "grid.buses", "grid.sources"):
            _table(file[table], swap)
        _attributes(file, swap, text)
    return names


def _axis(data, swap):
    if data.dtype.kind == "O":
        data[...] = [swap.get(old, old) for old in data.asstr()[:]]
    elif data.dtype.kind == "f":
        data.attrs["long_name"] = data.attrs["units"] = swap["grid"]


def _table(group, swap):
    for column in [name for name, data in group.items() if data.dtype.kind == "S"]:
        old = np.char.decode(group[column][:], "utf-8")
        new = {word: _renamed(word, swap) for word in set(old.tolist())}
        del group[column]
        group[column] = np.array([new[word].encode() for word in old.tolist()])


def _renamed(word, swap):
    """A name, or member.entity.port with another entity."""
    member, dot, rest = word.partition(".")
    return f"{member}.{'.'.join(swap.get(part, part) for part in rest.split('.'))}" if dot else swap.get(word, word)


def _attributes(file, swap, text):
    scenario = json.loads(file.attrs["scenario"])
    for name, table in scenario["shared"].items():
        if isinstance(table, dict):
            scenario["shared"][name] = {swap.get(key, key): row for key, row in table.items()}
    sources = scenario["members"]["grid"]["params"]["sources"]
    scenario["members"]["grid"]["params"]["sources"] = {swap.get(key, key): row for key, row in sources.items()}
    scenario["members"]["controller"]["params"]["policy"] = text
    scenario |= {"name": text, "about": text, text: text}
    summary = json.loads(file.attrs["summary"])
    summary["warnings"].append(text)
    summary["tables"].append({"title": text, "columns": [text, text], "rows": [[text, text]], "note": text})
    file.attrs["scenario"], file.attrs["summary"] = json.dumps(scenario), json.dumps(summary)
    file.attrs["versions"], file.attrs["notes"] = json.dumps({text: text}), json.dumps([text, f"solved by {text}"])
    for name in _TEXTS:
        file.attrs[name] = text
