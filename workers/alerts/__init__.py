"""Alerts: rules judged every minute by the books; what is crossed is told once."""
