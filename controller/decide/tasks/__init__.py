"""Which task goes where, what comes next for each, and what is said and counted of it."""
