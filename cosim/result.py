"""How a run ended, and its numbers as tables of pandas and xarray."""

from __future__ import annotations

import os
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cosim.digest import Digest
from cosim.drivers.resolve import Resolved
from cosim.errors import ScenarioError, TraceError, unknown
from cosim.plaintext import visible
from cosim.trace import Trace
from cosim.trace.series import columns_of

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


@dataclass(frozen=True, repr=False)
class Result:
    """How a run ended.

    path      the trace; None: the run wrote none
    status    'completed'
    resolved  the scenario with everything filled in, and its clock
    wall_s    seconds of wall-clock time: total, bus, trace, start and every member
    notes     what the simulators note about the run, a sentence each
    digest    the summary: tables for people, warnings, figures by name
    """

    path: Path | None
    status: str
    resolved: Resolved
    wall_s: dict[str, float]
    notes: list[str]
    digest: Digest

    @property
    def figures(self) -> dict[str, float]:
        """The figures of the summary by name; the suffix of a name is its unit. {} without a trace or a summary."""
        return dict(self.digest.figures)

    @property
    def summary(self) -> pd.DataFrame:
        """The figures as a tidy table: scenario, seed, figure, value. Tables of several runs go under each other."""
        import pandas as pd

        scenario = self.resolved.scenario
        return pd.DataFrame({"scenario": scenario.name, "seed": scenario.seed, "figure": list(self.digest.figures),
                             "value": np.array(list(self.digest.figures.values()), float)})

    def to_pandas(self, name: str) -> pd.DataFrame:
        """One port, model or table of the trace.

        'aidc/Site/p_kw': rows by date, a column per entity (of a port with a further axis: entity and label);
        'aidc/Site': columns by port, entity and label ('' where a port has no further axis); 'jobs': a row per job.
        Raises TraceError for a name that the trace does not have.
        """
        import pandas as pd

        with Trace(self._trace()) as trace:
            if name in trace.tables():
                return pd.DataFrame(trace.table(name))
            levels = {model: trace.ports(model) for model in trace.models()}
            model, _, port = (name, "", "") if name in levels else name.rpartition("/")
            if model not in levels or (port and port not in levels[model]):
                known = [*levels, *trace.tables(), *(f"{m}/{p}" for m, ports in levels.items() for p in ports)]
                raise TraceError(f"{self.path}: {unknown('port, model or table', name, known)}")
            ports = [port] if port else levels[model]
            columns = {(port, entity, *(label or ("",))): values for port in ports
                       for (entity, *label), values in columns_of(trace, model, port)}
            frame = pd.DataFrame(columns, index=pd.Index(_dates(trace, model), name="time"))
            frame.columns = pd.MultiIndex.from_tuples(columns, names=("port", "entity", "label"))
            if name == model:
                return frame
            further = bool(trace.dims(name))
            return frame.droplevel(["port"] if further else ["port", "label"], axis="columns")

    def to_xarray(self, model: str | None = None) -> xr.Dataset | xr.DataTree:
        """The levels of one model of the trace ('aidc/Site') as a labelled data set, of all models as a tree.

        Axes are time_s (whole seconds since the start, with the coordinate `time`), entity and those of the port; units
        and long_name are attributes. Raises ScenarioError without xarray, TraceError for a model that is not there.
        """
        try:
            import xarray as xr
        except ImportError:
            raise ScenarioError("to_xarray() needs the package xarray, which is not installed; install aidc-cosim with "
                                "the extra 'xarray', or take to_pandas()") from None

        with Trace(self._trace()) as trace:
            if model is not None:
                return xr.Dataset(**_data_set(trace, model))
            return xr.DataTree.from_dict({name: xr.Dataset(**_data_set(trace, name)) for name in trace.models()})

    def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Draw the page of pictures and return where it is (default: beside the trace)."""
        from cosim.report import write_page

        trace = self._trace()
        return write_page([trace], path, trusted=[trace])

    def _trace(self) -> Path:
        if self.path is None:
            raise TraceError("this run wrote no trace; name a file for it (out=...)")
        return self.path

    def _about(self) -> str:
        scenario, simulated = self.resolved.scenario, self.resolved.clock.label(self.resolved.until)
        return visible(f"{scenario.name}, {simulated} simulated, seed {scenario.seed}, {self.status} in "
                       f"{self.wall_s['total']:.1f} s, {f'trace {self.path}' if self.path else 'no trace'}")

    def __repr__(self) -> str:
        return f"<Result: {self._about()}>"

    def _repr_html_(self) -> str:
        """The summary's tables, as Jupyter shows a result."""
        parts = [f"<p><b>{escape(self._about())}</b></p>"]
        for table in self.digest.tables:
            head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
            rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
            parts.append(f"<table><caption>{escape(table.title)}</caption><thead><tr>{head}</tr></thead>"
                         f"<tbody>{rows}</tbody></table><p>{escape(table.note)}</p>")
        said = [*(f"warning: {text}" for text in self.digest.warnings), *(f"note: {text}" for text in self.notes)]
        parts += [f"<p>{escape(visible(text))}</p>" for text in said]
        return "".join(parts)


def _dates(trace: Trace, model: str) -> np.ndarray:
    """Dates of a model's samples, UTC."""
    start = np.datetime64(str(trace.attrs["start"]).removesuffix("Z"), "s")
    return (start + trace.time_s(model).astype("timedelta64[s]")).astype("datetime64[ns]")


def _data_set(trace: Trace, model: str) -> dict[str, dict]:
    """Arguments of an xarray.Dataset: variables and coordinates of a model."""
    variables, coordinates = {}, {"time_s": trace.time_s(model), "entity": trace.names(model),
                                  "time": ("time_s", _dates(trace, model))}
    for port in trace.ports(model):
        path = f"{model}/{port}"
        about, unit = trace.about(path)
        dims = trace.dims(path)
        coordinates |= {dim: trace.names(model, dim) for dim in dims}
        variables[port] = (("time_s", "entity", *dims), trace[path], {"units": unit, "long_name": about})
    return {"data_vars": variables, "coords": coordinates}
