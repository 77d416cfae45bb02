"""How many servers a fleet needs, and whether splitting it into pools pays: closed forms and queueing theory."""
