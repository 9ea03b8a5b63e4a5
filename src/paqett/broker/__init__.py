"""Mosquitto as our child: its files from PostgreSQL, its log into the devices' status."""
