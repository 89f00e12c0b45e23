"""Runs a program that a model wrote, contained by the kernel."""
