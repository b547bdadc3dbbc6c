"""What people write on the command line: options, names, kinds and files. Checked before the cluster is asked."""
