"""Where a calibration takes place: in this process (`local`), or on a cluster (`ray`)."""
