"""Methods that treat matrices as a whole: singular vectors, frequencies, least squares."""
