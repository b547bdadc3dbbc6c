"""ValidatingAdmissionPolicies: what they say to a write that is about to be stored."""
