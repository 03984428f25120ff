"""The history of metric values: 14 days of every metric that a profile names, by thing and time (spec.md §1.6)."""
