"""Servers kept READY in advance: `ServerPool`."""
