"""Work nobody waits for: taking ends of never-started jobs to Postgres, and later sweeps, relays, roll-ups."""
