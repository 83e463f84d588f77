"""What is kept, and who may change it: tables, files, job states, dispatch."""
