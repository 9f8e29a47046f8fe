"""Replies through messengers: a delivery becomes messages of the channel's provider, each sent once wherever that can be."""
