"""Pure decisions: no await, no clock, no I/O. Time is an argument."""
