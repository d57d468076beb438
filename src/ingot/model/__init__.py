"""The network: its shape (`architecture`, free of PyTorch), itself (`decoder`), its loss, and its life elsewhere."""
