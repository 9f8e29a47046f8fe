"""What is known of users: their profiles and facts, for console and command line."""
