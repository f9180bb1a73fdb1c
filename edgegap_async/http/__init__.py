"""One call: guard, rate limits, retries, transport. Knows nothing of what a deployment is for."""
