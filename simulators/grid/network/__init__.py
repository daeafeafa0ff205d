"""Networks from files and tables: what they ask for, as circuits and radial feeders, and their AC power flow."""
