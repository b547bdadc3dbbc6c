"""What people see: tables, times, colours, documents for programs, and questions. Nothing here asks the cluster."""
