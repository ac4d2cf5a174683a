"""From loads of known kernels to a device profile, and the test of what the estimator claims."""
