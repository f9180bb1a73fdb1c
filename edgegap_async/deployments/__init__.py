"""One deployment from the deploy to its end, and who has to stop it.

Here are the idempotent deploy and its keys, the register of deployments, what the client owns and
has to stop, handles, checks of playability, and the iterators that follow logs and metrics.
Work on many deployments belongs in `batch` and `pool`, and learning a status in `polling`.
"""
