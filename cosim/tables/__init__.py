"""CSV and Parquet tables of time series, and the one clock by which their rows hold."""
