"""From charges to a decision: the store's answer, what stands in for it, and what is corrected afterwards."""
