"""What commands say of themselves: --help, --version and lists of choices, from the yamls."""
