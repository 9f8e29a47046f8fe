"""Agents that only tests have."""
