"""The commands of `detectd`, one file each: what they print and the exit code they return."""
