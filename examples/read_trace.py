"""Read a trace with xarray: energy, cost and attributed carbon per site, without any of our code.

    python examples/read_trace.py run.h5
"""

import sys

import xarray as xr


def account(path: str) -> xr.Dataset:
    """kWh, USD and kg of carbon per site: minute means of power, at the price and the NCI of each minute."""
    sites, tariff, bus, wiring = (
        xr.open_dataset(path, group=group, engine="h5netcdf", decode_times=False, phony_dims="sort")
        for group in ("aidc/Site", "tariff/Tariff", "grid/Bus", "wiring"))
    kwh = sites["p_kw"] / 60.0
    price = tariff["price_usd_per_kwh"].isel(entity=0, drop=True).reindex_like(sites["time_s"], method="ffill")
    ends = [[end.decode().split(".") for end in pair]
            for pair in zip(wiring["source"].values, wiring["target"].values, strict=True)]
    bus_of = {target[1]: source[1] for source, target in ends if target[2] == "nci_kg_per_kwh"}
    nci = bus["nci_kg_per_kwh"].sel(entity=[bus_of[site] for site in sites["entity"].values])
    nci = nci.assign_coords(entity=sites["entity"].values).reindex(time_s=sites["time_s"].values, method="ffill")
    return xr.Dataset({"energy_kwh": kwh.sum("time_s"), "cost_usd": (kwh * price).sum("time_s"),
                       "co2_kg": (kwh * nci).sum("time_s")})


if __name__ == "__main__":
    print(account(sys.argv[1]).to_dataframe().round(3))
