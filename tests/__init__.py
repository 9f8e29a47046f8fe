"""Tests against real servers; `conftest` brings them. Importable, so that child processes can be test code."""
