SELECT create_tier('paid', interval '90 days');
