"""Paqett: multi-tenant IoT telemetry on MQTT and TimescaleDB."""

from importlib.metadata import version

__version__ = version("paqett")
