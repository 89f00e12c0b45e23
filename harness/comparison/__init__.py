"""The main job: train, score and time every variant of a run, and count what differs."""
