"""GPUs: what their datasheets say, what calibration measured, and what their counters are called."""
