"""Methods that see statistics of data through the tasks' networks; the data they never see."""
