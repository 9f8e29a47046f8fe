"""Operating alerts: rules, and what was crossed."""
