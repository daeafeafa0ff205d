"""The notebooks in examples/ run as they stand, in a kernel of their own, and are kept without outputs."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_kept_without_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    assert {cell["cell_type"] for cell in cells} == {"code", "markdown"}
    assert not [c for c in cells if c["cell_type"] == "code" and (c["outputs"] or c["execution_count"] is not None)]


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
@pytest.mark.rows("X01")
def test_notebooks_run(path, tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient, of the extra 'test'")
    pytest.importorskip("ipykernel", reason="needs ipykernel, of the extra 'test'")
    notebook = pytest.importorskip("nbformat").read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in shown), "a cell shows nothing"
    printed = [out for cell in shown for out in cell.outputs if out.output_type in ("stream", "error")]
    assert not printed, printed
    assert "application/vnd.plotly.v1+json" in shown[-1].outputs[-1].data
