"""Devices, cores, compiled programs, keyed random bits, progress and events."""
