SELECT create_tier('own', interval '365 days', columnstore_after => interval '3 days');
