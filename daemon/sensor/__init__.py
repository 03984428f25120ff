"""The sensor: an MQTT pass-through that sees what each client does, in front of a broker that says nothing of it."""
