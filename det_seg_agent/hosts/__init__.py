"""What the adapters share: guarded commands, errors of bad input, and version checks of the toolboxes."""
