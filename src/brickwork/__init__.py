"""Deep-learning modules on JAX."""
