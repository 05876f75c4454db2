"""Which limit costs most in one scenario, and what would help."""
