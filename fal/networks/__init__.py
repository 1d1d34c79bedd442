"""Networks of the paper and its companions, small enough for clients."""
