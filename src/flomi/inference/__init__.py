"""From held-out scores to numbers with errors, a certificate and a verdict (numpy and scipy)."""
