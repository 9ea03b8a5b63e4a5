"""From the broker into the tiers: batches, and acknowledgements after the commit."""
