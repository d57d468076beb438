"""What is shown of runs: a report of one as a self-contained page, and a live page over all of them."""
