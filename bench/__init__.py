"""Peers and measurements: what the same work costs when it is done in the plain or the published way."""
