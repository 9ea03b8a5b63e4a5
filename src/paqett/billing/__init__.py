"""Plans sold by Stripe: the only place that knows its SDK. Stripe is the truth, we ask it."""
