"""Python client and the ``accel`` command. It speaks HTTP and imports nothing of the service itself."""
