"""Solvers of the deployment problem: they import the core, the core knows none of them."""
