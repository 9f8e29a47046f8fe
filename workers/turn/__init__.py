"""A chat turn, from a claimed job to its one committed end: load → guard → answer (route, call, book) → commit."""
