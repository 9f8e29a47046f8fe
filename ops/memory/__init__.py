"""`switchboard memory …`: which model memory is searched by, moving it to another one, and what is late."""
