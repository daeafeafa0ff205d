"""AI data centers: ports and equations (power, cooling), a site, and the simulator on the bus."""
