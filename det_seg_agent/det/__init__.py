"""The Ultralytics adapter."""
