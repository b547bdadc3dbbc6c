"""A module or a folder for each verb of `podslots`: its options, and what it does. Only what is used is loaded."""
