"""What the commands for operators do alike: open Postgres and Redis, read what was typed, say what is wrong, print."""
