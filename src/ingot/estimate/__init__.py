"""What a run will need, by arithmetic: memory, time and loss, before anything is started. No PyTorch here."""
