"""Electricity price by the time of day or from a table, its forecast, prices of single sites, and demand charges.

Rows: I19, P05.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cosim.adapter import ExogenousAdapter, Values, serve
from cosim.errors import ScenarioError, listed, unknown
from cosim.params import params
from cosim.plausible import Price, stated_unit
from cosim.ports import Port
from cosim.simulators.forecast.horizon import HORIZON, HorizonS, HorizonStepS, horizon_steps, labels, leads_s
from cosim.simulators.grid.columns import read_column
from cosim.tables.table import DataTable, Overflow, TableOptions, TableSeries
from cosim.units import DAY_S, HOUR_S, Seconds, whole_steps

PRICE = "price_usd_per_kwh"
Boundary = Literal["half_open", "closed", "inclusive_hour"]


@params
class PriceWindow:
    """A price that holds every day from one hour to another; an end before the start lies on the next day."""

    start_h: Annotated[float, Field(ge=0, lt=24, description="hour of the day")]
    end_h: Annotated[float, Field(ge=0, le=24, description="hour of the day, 24 for midnight")]
    price_usd_per_kwh: Annotated[Price, Field(description="USD/kWh; may be negative")]

    @model_validator(mode="after")
    def _has_length(self) -> PriceWindow:
        if self.start_h == self.end_h:
            raise ValueError(f"the window from {self.start_h:g} h to {self.end_h:g} h has no length; for a whole day "
                             "set base_usd_per_kwh")
        return self

    @property
    def length_s(self) -> float:
        """From start to end, s."""
        return (self.end_h - self.start_h) * HOUR_S % DAY_S or DAY_S


@params
class SitePrice:
    """Where a site's price is not the common one."""

    adder_usd_per_kwh: Annotated[Price, Field(description="on the common price; may be negative")] = 0.0
    base_usd_per_kwh: Annotated[Price | None, Field(
        description="its own price outside its windows, in place of the common one; null: the common price")] = None
    windows: Annotated[tuple[PriceWindow, ...], Field(description="its own windows, with its own base")] = ()
    demand_charge_usd_per_kw: Annotated[float | None, Field(ge=0, le=1e4, description="its own demand charge; null: "
                                                            "the common one")] = None

    @model_validator(mode="after")
    def _windows_have_a_base(self) -> SitePrice:
        if self.windows and self.base_usd_per_kwh is None:
            raise ValueError("a site's own windows need its own base_usd_per_kwh")
        return self


@params
class TimeOfUseParams:
    """Parameters of `TimeOfUse`; defaults are Table I's."""

    base_usd_per_kwh: Annotated[Price, Field(description="outside all windows, USD/kWh; may be negative")] = 0.1
    windows: Annotated[tuple[PriceWindow, ...], Field(description="the first that holds is the price")] = (
        PriceWindow(11.0, 15.0, 0.3), PriceWindow(19.0, 23.0, 0.03))
    boundary: Annotated[Boundary, Field(description="whether a window's end belongs to it")] = "half_open"
    deferrals_s: Annotated[tuple[Seconds, ...], Field(
        min_length=1, max_length=1000, description="leads of the forecast, s")] = tuple(
        h * HOUR_S for h in (0.0, 2.0, 4.0, 6.0, 8.0, 10.0))
    prices: Annotated[str | None, Field(description="CSV or Parquet table with a column of times (time_s, or dates as "
                                        "`time`) and one of prices, price_usd_per_kwh or in another unit; in the place "
                                        "of base and windows")] = None
    prices_column: Annotated[str | None, Field(description="column of the prices; null: by the table's columns")] = None
    prices_unit: Annotated[Literal["usd_per_kwh", "usd_per_mwh"] | None, Field(
        description="of prices_column; null: that of its name")] = None
    prices_factor: Annotated[float | None, Field(gt=0, description="times the table's prices: USD per unit of their "
                                             "currency; null: they are in USD")] = None
    prices_where: Annotated[dict[str, str], Field(description="column -> value: rows of another one are left out (a "
                                              "node, a zone)")] = field(default_factory=dict)
    prices_overflow: Annotated[Overflow, Field(
        description="outside of the table: hold its nearest row, raise (forecasts are held), or wrap: repeat it"
    )] = "hold"
    prices_time_zone: Annotated[str | None, Field(description="IANA name of the zone of dates that have no offset; "
                                                  "null: UTC, with a note")] = None
    scenario_start: Annotated[
        str | None, Field(description="date of t = 0, for a table with dates; the run fills it in")] = None
    demand_charge_usd_per_kw: Annotated[float, Field(
        ge=0, le=1e4, description="of each site's highest mean power over metering_s in each billing period, USD/kW")
    ] = 0.0
    billing: Annotated[Literal["day", "month"], Field(
        description="billing period, of the calendar; one that the run has a part of counts in proportion")] = "month"
    metering_s: Annotated[Seconds, Field(gt=0, le=DAY_S, description="power is metered as means over this time")
                          ] = 900.0
    site_prices: Annotated[dict[str, SitePrice], Field(
        description="prices of single sites, where they differ; needs entities of the model Site")] = field(
            default_factory=dict)


def holds(window: PriceWindow, time_s: float, boundary: Boundary) -> bool:
    """Whether a window covers a time (s since midnight of day 0).

    half_open       [start, end)
    closed          [start, end]: one more minute of a tariff read once a minute
    inclusive_hour  the end is a whole hour that belongs to it: 11 to 15 are five hours
    """
    since_s = (time_s - window.start_h * HOUR_S) % DAY_S
    if boundary == "closed":
        return since_s <= window.length_s
    return since_s < window.length_s + (HOUR_S if boundary == "inclusive_hour" else 0.0)


def price_usd_per_kwh(tariff: TimeOfUseParams, time_s: float) -> float:
    """The price at a time (s since midnight of day 0), USD/kWh; every day is like the first."""
    return window_price(tariff.windows, tariff.base_usd_per_kwh, tariff.boundary, time_s)


def window_price(windows: Sequence[PriceWindow], base: float, boundary: Boundary, time_s: float) -> float:
    """The price of the first window that holds, else the base."""
    return next((w.price_usd_per_kwh for w in windows if holds(w, time_s, boundary)), base)


class TimeOfUse(ExogenousAdapter):
    """Price now and at the times to which jobs may be deferred, by windows of the day or from a table.

    The run starts at midnight. The forecast is perfect: it is what the price will be. In the worlds of a learner a
    table goes on day after day.
    """

    PARAMS = TimeOfUseParams
    TABLE_FIELD = "prices"
    VARIANTS = ("cosim.simulators.tariff:KnownTariff",)
    MODELS = {
        "Tariff": (
            Port("price_usd_per_kwh", "out", "electricity price"),
            Port("forecast_usd_per_kwh", "out", "electricity price at now + lead", dims=("lead",)),
        ),
        "Site": (Port("site_price_usd_per_kwh", "out", "electricity price at the site"),),
    }

    @classmethod
    def check_horizon(cls, member: str, given: TimeOfUseParams, step_s: float, until_s: float) -> None:
        """ScenarioError for a table that does not cover the run, as its overflow needs it."""
        if given.prices is not None:
            _table(given, member).check(until_s)
        if not whole_steps(DAY_S, given.metering_s):
            raise ScenarioError(f"{member}.metering_s = {given.metering_s:g} does not divide a day")

    @classmethod
    def check_scenario(cls, member: str, given: TimeOfUseParams, scenario: Any) -> None:
        """ScenarioError for prices of sites that have no entity."""
        spec = scenario.members[member].entities.get("Site", ())
        sites = list(scenario.shared.get(spec, {})) if isinstance(spec, str) else list(spec)
        for name in given.site_prices:
            if not sites:
                raise ScenarioError(f"{member}.site_prices has a price of {name} and the tariff has no entities of the "
                                    f"model Site: --set {member}.entities.Site=sites")
            if name not in sites:
                raise ScenarioError(f"{member}.site_prices: {unknown('site', name, sites)}")

    def setup(self) -> None:
        """ScenarioError for a lead into the past."""
        early = [lead for lead in self.params.deferrals_s if lead < 0]
        if early:
            raise ScenarioError(f"{self.sid}.deferrals_s holds {early[0]:g} s; a lead is 0 or more")
        p = self.params
        self._forecasts = _prices_by_time_of_day(p.base_usd_per_kwh, p.windows, p.boundary, p.deferrals_s)
        self._series = None if self.params.prices is None else _prices(self.params, self.sid)

    def site_price_usd_per_kwh(self, site: str, common: float, time_s: float) -> float:
        """The price at a site, where the common one is `common`."""
        own = self.params.site_prices.get(site)
        if own is None:
            return common
        if own.base_usd_per_kwh is not None:
            common = window_price(own.windows, own.base_usd_per_kwh, self.params.boundary, time_s)
        return common + own.adder_usd_per_kwh

    def labels(self) -> dict[str, list[str]]:
        """Leads in hours."""
        return {"lead": [f"{lead / HOUR_S:g}h" for lead in self.params.deferrals_s]}

    def initial(self) -> Values:
        """The prices of midnight."""
        return self.advance(0.0, {})

    def advance(self, time_s: float, inputs: Values) -> Values:
        """Price and forecast; a time of day is worked out once."""
        if self._series is not None:
            now_s = self.origin_s + time_s
            price = self._series.at(now_s)
            forecast = [self._series.at(now_s + lead, forecast=True) for lead in self.params.deferrals_s]
            return self._everywhere(price, forecast, now_s)
        of_day = time_s % DAY_S
        if of_day not in self._forecasts:
            self._forecasts[of_day] = (price_usd_per_kwh(self.params, of_day),
                                   [price_usd_per_kwh(self.params, of_day + s) for s in self.params.deferrals_s])
        price, forecast = self._forecasts[of_day]
        return self._everywhere(price, forecast, of_day)

    def _everywhere(self, price: float, forecast: list[float], time_s: float) -> Values:
        """Outputs of all entities."""
        out: Values = {eid: {"price_usd_per_kwh": price, "forecast_usd_per_kwh": list(forecast)}
                       for eid in self.entities["Tariff"]}
        for site in self.entities["Site"]:
            out[site] = {"site_price_usd_per_kwh": self.site_price_usd_per_kwh(site, price, time_s)}
        return out

    def notes(self) -> list[str]:
        """How the table was read, and that policies do not see the sites' own prices."""
        said = [] if self._series is None else [f"{self.sid}: {text}" for text in self._series.notes(self.step_s)]
        if self.params.site_prices:
            said.append(f"{self.sid}: cost counts the sites' own prices; policies see the common price and its "
                        "forecast")
        return said


@params
class KnownTariffParams(TimeOfUseParams):
    """A tariff and how far ahead it is known, in which steps."""

    horizon_s: HorizonS = DAY_S
    horizon_step_s: HorizonStepS = 900.0


class KnownTariff(TimeOfUse):
    """A `TimeOfUse` that also exports what the price will be at every step of a horizon: for perfect forecasts.

    A class of its own, as the horizon is longer than most need. The prices to come are those from the last multiple of
    horizon_step_s on.
    """

    PARAMS = KnownTariffParams
    MODELS = {**TimeOfUse.MODELS, "Tariff": (
        *TimeOfUse.MODELS["Tariff"],
        Port("price_future_usd_per_kwh", "out", "electricity price now and at each step to come", dims=(HORIZON,)))}

    @classmethod
    def check_horizon(cls, member: str, given: Any, step_s: float, until_s: float) -> None:
        """As `TimeOfUse`; ScenarioError for a horizon that cannot be."""
        super().check_horizon(member, given, step_s, until_s)
        horizon_steps(member, given.horizon_s, given.horizon_step_s)

    def labels(self) -> dict[str, list[str]]:
        """As `TimeOfUse`, and minutes ahead."""
        return super().labels() | {HORIZON: labels(self.params.horizon_s, self.params.horizon_step_s)}

    def setup(self) -> None:
        """As `TimeOfUse`."""
        super().setup()
        self._made_s, self._made = -1.0, [0.0]

    def advance(self, time_s: float, inputs: Values) -> Values:
        """As `TimeOfUse`, and the prices to come."""
        outputs, made_s = super().advance(time_s, inputs), time_s - time_s % self.params.horizon_step_s
        if made_s != self._made_s:
            self._made_s, self._made = made_s, self._ahead(made_s)
        for eid in self.entities["Tariff"]:
            outputs[eid]["price_future_usd_per_kwh"] = list(self._made)
        return outputs

    def _ahead(self, time_s: float) -> list[float]:
        p, series = self.params, self._series
        leads = leads_s(p.horizon_s, p.horizon_step_s)
        if series is None:
            return [price_usd_per_kwh(p, (time_s + lead) % DAY_S) for lead in leads]
        return [series.at(self.origin_s + time_s + lead, forecast=True) for lead in leads]


@lru_cache(maxsize=64)
def _prices_by_time_of_day(*tariff: Any) -> dict[float, tuple[float, list[float]]]:
    """Time of day, s -> price and forecast, as far as they have been worked out; one for all worlds of a tariff."""
    return {}


def _table(p: TimeOfUseParams, member: str) -> DataTable:
    assert p.prices is not None, "there is a table"
    options = TableOptions(f"{member}.prices_", p.scenario_start, p.prices_time_zone, p.prices_overflow,
                           where=p.prices_where)
    return DataTable(p.prices, options)


def _prices(p: TimeOfUseParams, member: str) -> TableSeries:
    """The prices of the table, USD/kWh: its column of our name, else the one that is given, a service's or the only one
    with a price in its name."""
    table, owner = _table(p, member), f"{member}.prices"
    if p.prices_column is None and table.match(PRICE) is not None:
        return TableSeries(table, PRICE, member, owner, p.prices_factor or 1.0)
    said = [name for name in table.columns if stated_unit(name, "price") is not None]
    column = p.prices_column or table.figure or (said[0] if len(said) == 1 else None)
    if column is None:
        raise ScenarioError(f"{owner}: {table.path} has no column {PRICE}; it has {listed(table.columns)}: name one by "
                            f"--set {owner}_column=NAME")
    values = read_column(table, column, p.prices_unit, PRICE, f"{owner}_unit", p.prices_factor or 1.0)
    return TableSeries.of(table, values)


if __name__ == "__main__":
    serve(TimeOfUse)
