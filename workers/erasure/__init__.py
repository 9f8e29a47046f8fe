"""What every writer knows of erased people: the hashes by which Postgres recognises them."""
