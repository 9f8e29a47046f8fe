"""Messengers' APIs on this machine: WhatsApp, Twilio, Telegram and Slack as far as replies need them, and their users.

Part of the stand-in server (`ops.standin`), below `/messengers`; the product reaches it over HTTP like the providers
themselves. Strict: it checks tokens, shapes, lengths and paces, and keeps books of what it took.
"""
