"""What a third-party package looks like."""
