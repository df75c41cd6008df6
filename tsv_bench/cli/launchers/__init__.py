"""What launchers of Hydra's plugins lack: ray_jobs.py lets Ray's go on after a loss."""
