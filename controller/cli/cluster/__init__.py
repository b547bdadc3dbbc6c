"""The cluster that a command line means: the connection, its errors in words, rights, lists that are watched."""
