"""Operating deliveries: endpoints and their secrets, what was sent to whom, and sending it again."""
