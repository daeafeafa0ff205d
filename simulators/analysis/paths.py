"""Where the ports of the study's members stand in a trace, as member/model or member/model/port."""

SITE, BUS, GRID = "aidc/Site", "grid/Bus", "grid/Grid"
PRICE = "tariff/Tariff/price_usd_per_kwh"
