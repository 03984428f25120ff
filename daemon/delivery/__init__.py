"""From the outbox to the receivers: a courier each, in order per thing, tried again, nothing forgotten."""
