"""Who asks, and what they may do: tokens, impersonation, RBAC, and the reviews that tell people about it."""
