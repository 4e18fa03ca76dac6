"""Small apps that react, tasks in them, and an agent that does the tasks by names alone."""
