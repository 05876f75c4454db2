"""From traffic to a fleet: what to run, what it costs, how sure that is, and what would change it."""
