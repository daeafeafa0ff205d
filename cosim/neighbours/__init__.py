"""Members that other tools bring: functional mock-up units (FMI) and federates of a HELICS federation."""
