"""Plans replayed request by request: queues, batches, and whether promises are kept."""
