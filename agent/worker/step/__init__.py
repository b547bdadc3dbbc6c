"""Running a step: what comes before its commands, the commands themselves, and what they print."""
