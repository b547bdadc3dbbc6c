"""What is said of a pool as a whole: its status and figures, its tokens, revisions, protection, and its end."""
