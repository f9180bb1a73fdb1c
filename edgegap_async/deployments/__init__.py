"""One deployment from the deploy to its end, and who has to stop it.

Here are the idempotent deploy, the register of deployments, handles and checks of playability.
Work on many deployments belongs in `batch` and `pool`, and learning a status in `polling`.
"""
