"""What a model is shown: what is remembered, delimited, and all of it packed to a bound of tokens (decisions/0030)."""
