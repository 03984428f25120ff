"""AWS IoT's REST API, as botocore's service model states it: one function per operation, in `operations/`."""
