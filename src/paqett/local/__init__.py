"""Everything on one machine: the local stack, and what runs beside it as a device."""
