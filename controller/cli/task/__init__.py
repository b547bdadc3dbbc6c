"""One task as several verbs read it: as it changes, its output, and its plan that waits for an approval."""
