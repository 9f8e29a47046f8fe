"""What memory needs a model for, and nobody waits for: summaries of conversations, facts about users.

See decisions/0030.
"""
