"""Where the ports of the study's members stand in a trace, as member/model or member/model/port."""

SITE, BUS, GRID, BATTERY = "aidc/Site", "grid/Bus", "grid/Grid", "grid/Battery"
PRICE, SITE_PRICE = "tariff/Tariff/price_usd_per_kwh", "tariff/Site/site_price_usd_per_kwh"
CALLS = "flexibility/Site"
