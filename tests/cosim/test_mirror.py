"""Copies of a campaign's folder by fsspec: each cell as it ends, all of it at the end, nothing twice, nothing lost."""

import json

import pytest

from cosim.campaign.cells import Cell
from cosim.campaign.mirror import COPIED, Mirror, mirrored
from cosim.campaign.runner import run_cells
from cosim.errors import DiskError, ModelError, ScenarioError

fsspec = pytest.importorskip("fsspec", reason="needs the extra 'store' (fsspec)")
SQUARES = [Cell(f"x{k}", "small_cells:square", {"x": k, "seed": k}) for k in range(2)]


def stored(url):
    store, root = fsspec.core.url_to_fs(url)
    return {path.removeprefix(f"{root}/"): store.cat_file(path) for path in store.find(root)}


def has(protocol):
    """Whether fsspec can write to stores of this kind here."""
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError:
        return False
    return True


def folder(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*")
            if path.is_file() and not path.name.startswith(".") and path.name != "lock"}


@pytest.mark.long(after=1)
@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_the_copy_is_the_folder(tmp_path, scheme):
    out, url = tmp_path / "out", f"{scheme}://{tmp_path.as_posix()}/copy"
    with mirrored(out, url, progress=False) as ended:
        run_cells(SQUARES, out, progress=False, ended=ended)
        (out / "table.csv").write_text("a,b\n")
    assert stored(url) == folder(out)
    assert {"cells/x0/result.json", "states/x1.json", "manifest.json", "table.csv"} <= set(folder(out))


def test_cells_are_there_before_the_end_and_nothing_is_copied_twice(tmp_path, monkeypatch):
    out, url = tmp_path / "out", f"memory://{tmp_path.as_posix()}/copy"
    run_cells(SQUARES, out, progress=False)
    mirror, put = Mirror(out, url, progress=False), []
    write = mirror._store.put_file
    monkeypatch.setattr(mirror._store, "put_file", lambda here, there: (put.append(there), write(here, there)))
    mirror.cell("x0")
    mirror._open[0].result()
    assert f"{mirror._root}/cells/x0/result.json" in put
    assert not any("/cells/x1/" in name for name in put)
    count = mirror.finish()
    assert len(put) == count == len(folder(out)) == len(set(put))
    put.clear()
    again = Mirror(out, url, progress=False)
    (out / "cells" / "x1" / "result.json").write_text("{}")
    again.finish()
    assert put == [f"{again._root}/cells/x1/result.json"]
    other = Mirror(out, f"{url}-other", progress=False)
    put.clear()
    other.finish()
    assert len(put) == count, "another store has nothing yet"
    assert json.loads((out / COPIED).read_text())["url"] == f"{url}-other"


def test_a_stopped_campaign_is_copied_as_far_as_it_is(tmp_path):
    out, url = tmp_path / "out", f"memory://{tmp_path.as_posix()}/copy"

    def stopped():
        with mirrored(out, url, progress=False) as ended:
            run_cells(SQUARES[:1], out, progress=False, ended=ended)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert "cells/x0/result.json" in stored(url)


def test_a_store_that_does_not_take_it_is_one_line_and_the_folder_is_whole(tmp_path):
    out, blocked = tmp_path / "out", tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DiskError, match=f"could not be copied to file://{blocked}/copy: .*; it is in {out}, and the"), \
            mirrored(out, f"file://{blocked}/copy", progress=False) as ended:
        run_cells(SQUARES, out, progress=False, ended=ended)
    assert {"cells/x0/result.json", "cells/x1/result.json"} <= set(folder(out))


@pytest.mark.parametrize(("url", "said"), [("nothing://x", "Protocol not known: nothing"),
                                           ("s3://bucket/x", "Install s3fs")])
def test_a_url_that_nothing_writes_to_is_refused_before_a_cell_is_computed(tmp_path, url, said):
    if url.startswith("s3") and has("s3"):
        pytest.skip("s3fs is here")
    with pytest.raises(ScenarioError, match=f"--copy-to {url}: .*{said}"), mirrored(tmp_path / "out", url):
        raise AssertionError("refused before")
    assert not (tmp_path / "out").exists()


def test_a_failure_is_not_hidden_by_that_of_its_copy(tmp_path, monkeypatch):
    out, url = tmp_path / "out", f"memory://{tmp_path.as_posix()}/copy"

    def full(self, here, there):
        raise OSError("the store is full")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "put_file", full)
    with pytest.raises(ModelError) as caught, mirrored(out, url, progress=False):  # noqa: PT012
        out.mkdir()
        (out / "table.csv").write_text("a,b\n")
        raise ModelError("grid: the dispatch has no solution")
    assert str(caught.value).startswith("grid: the dispatch has no solution; and table.csv could not be copied to ")
    assert "the store is full" in str(caught.value)
