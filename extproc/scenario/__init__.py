"""The two experiments of the token-pools paper against the real stack, each next to the same run without admission."""
