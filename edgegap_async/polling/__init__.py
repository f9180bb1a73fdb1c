"""Learns the status of deployments for the tasks that wait: what to ask about, how, and when.

The poller of a client belongs here, with its numbers and queues, and what lists can do and answers
mean. Deploying and stopping do not (see `deployments`), nor does sending a request (see `http`).
"""
