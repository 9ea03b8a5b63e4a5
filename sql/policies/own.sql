SELECT create_tier('own', interval '365 days');
