"""Learns the status of deployments: whom to ask about, how, and when."""
