"""Methods that learn on images of the tasks, through the network itself: a `Bench`."""
