"""The log: one stream in JetStream, written and read by a NATS client of our own, as fast as it comes."""
