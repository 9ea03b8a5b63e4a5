"""What MQTT and HTTP ingest share: from a payload to stored readings."""
