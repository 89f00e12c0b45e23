"""What the user asked for: flags, YAML and variant specs become a `Config`."""
