"""Plain networks: they map tensors to tensors and know no loss, no noise and no data."""
