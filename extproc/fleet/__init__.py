"""A fleet of simulated servers in virtual time: what pools, routing and server counts do to a trace."""
