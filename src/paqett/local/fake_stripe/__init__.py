"""A small Stripe on loopback, for tests and `paqett up --demo`: it keeps state and takes no money.

It knows what we call: customers, prices by lookup key, Checkout and portal sessions with pages to
click, subscriptions and signed webhooks, with switches for what goes wrong in life.
"""
