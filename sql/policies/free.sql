SELECT create_tier('free', interval '7 days');
