"""What the report and the live view show of data centers, grids and prices: a scenario names it as its `report`."""
