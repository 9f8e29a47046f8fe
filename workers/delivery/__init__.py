"""Deliveries: rows of the table `deliveries` become requests, and their answers what becomes of the rows."""
