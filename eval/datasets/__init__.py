"""Reading data sets in the forms in which they are published: files, archives, rows, masks, videos."""
