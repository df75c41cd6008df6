"""Methods that send each image to experts by a router: the task need not be known."""
