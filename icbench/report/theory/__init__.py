"""The theory page of a sweep whose networks were measured: predicted against measured, and what goes with speed."""
