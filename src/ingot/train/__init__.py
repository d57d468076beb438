"""Training: one loop for pretraining, continued pretraining and chat tuning."""
