"""The configuration of a run: flags, YAML and variant specs become a `Config`."""
