"""Run folders thinned and packed; what is used; quotas."""
