"""The response cache: the same question, asked again within minutes, gets the answer there is, and costs nothing.

`question` says what is the same question and what is never cached, `store` keeps answers in Redis, `flight` lets one of
all who ask at once ask the model. A turn goes through `flight.Cache.answered`; without a cache it works the same.
"""
