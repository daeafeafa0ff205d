"""Networks from files and tables: checked, as circuits and radial feeders, and their AC power flow."""
