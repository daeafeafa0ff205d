"""GPUs of several types at a site, power limits of GPUs, and GPUs asleep."""
