"""The admission policies, by what they protect, and the expressions that they share."""
