"""How a step is computed: on one device now; the loop does not know which engine it drives."""
