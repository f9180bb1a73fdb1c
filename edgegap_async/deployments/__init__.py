"""One deployment, from the deploy request to its end, and who has to stop it."""
