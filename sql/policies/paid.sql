SELECT create_tier('paid', interval '90 days', columnstore_after => interval '3 days');
