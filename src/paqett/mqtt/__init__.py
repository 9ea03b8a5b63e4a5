"""MQTT on gmqtt: what ingest receives and what a device sends."""
