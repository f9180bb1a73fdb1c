"""Calls that few programs make, one module for each resource: their bodies and their rows."""
