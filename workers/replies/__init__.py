"""Replies through messengers: a delivery becomes messages of its channel, each sent once wherever that can be."""
