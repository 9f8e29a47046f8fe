"""Lines, numbers, reports and traces of real processes and real turns."""
